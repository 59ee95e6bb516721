"""Do the answers of the nearest merges make better drafts than those of base and parents alone?

    python results/studies/draft_neighbours.py      # half a minute; needs the searches of search_efficiency.py

No model runs: a search keeps every token that its merges answered, and drafts change none, so that the passes of a
trial can be counted from the tokens alone, step by step as nex_merge/generation takes them. Cost of a pass as there:
PASS_TOKENS and the tokens that it reads. Writes draft_neighbours.csv.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nex_merge.generation.batches import PASS_TOKENS, best_draft_length, should_refill
from nex_merge.generation.drafts import Draft
from nex_merge.records import Response
from nex_merge.runs.run import RunFolder
from nex_merge.study.neighbours import nearest

HERE = Path(__file__).parent
DATA = HERE.parent / "study_data" / "searches" / "qwen3-tiny"
SEARCHES = ("unraced-0", "random-0")
POOL = ("random-0", "random-1", "random-2")  # a search of 100 random merges
NEIGHBOURS = (0, 1, 2, 4, 8)


def passes(responses: Sequence[Response], references: Sequence[Response]) -> tuple[int, int]:
    """Number of forward passes after the first, and of the tokens that they read, for one batch of these responses."""
    texts: dict[int, list[Sequence[int]]] = {}
    for reference in references:
        texts.setdefault(reference.prompt, []).append(reference.token_ids[:-1])
    rows = [(r, Draft(r.prompt_ids, texts.get(r.prompt, ()))) for r in responses]
    done = {r.prompt: 1 for r in responses}  # the pass over the prompts gives everyone's first token
    running, size, count, read = list(rows), len(rows), 0, 0
    while running := [row for row in running if done[row[0].prompt] < len(row[0].token_ids)]:
        if should_refill(size, len(running)):
            size = len(running)
        proposed = [d.propose(r.token_ids[: done[r.prompt]], 640 - done[r.prompt] - 1) for r, d in running]
        width = best_draft_length([(len(p), d.acceptance) for p, (_, d) in zip(proposed, running, strict=True)])
        for (response, _), draft in zip(running, proposed, strict=True):
            at = done[response.prompt]
            true = response.token_ids[at:]
            same = next((i for i, (a, b) in enumerate(zip(draft[:width], true, strict=False)) if a != b), None)
            accepted = min(len(draft[:width]), len(true)) if same is None else same
            done[response.prompt] = min(at + accepted + 1, len(response.token_ids))
        count, read = count + 1, read + size * (1 + width)
    return count, read


def rows(name: str, runs: Sequence[RunFolder], counted: set[int]) -> list[dict[str, Any]]:
    """A row per merge that is counted and number of neighbours, in the order of the trials."""
    merges = [(run, r) for run in runs for r in run.results() if r.kind == "merge" and r.same_as is None]
    found = [run.responses(r.trial) for run, r in merges]
    members = [x for r in runs[0].results() if r.kind != "merge" for x in runs[0].responses(r.trial)]
    recipes = [r.parameters for _, r in merges]
    out: list[dict[str, Any]] = []
    for t in sorted(counted & set(range(len(merges)))):
        for k in NEIGHBOURS:
            near = nearest(recipes[t], {str(i): recipes[i] for i in range(t)}, k)
            references = [*members, *(x for i in near for x in found[int(i)])]
            count, read = passes(found[t], references)
            tokens = sum(len(x.token_ids) for x in found[t])
            out.append({"search": name, "trial": t, "neighbours": k, "passes": count, "read": read, "tokens": tokens})
        print(*out[-len(NEIGHBOURS)].values(), out[-1]["passes"], flush=True)
    return out


def tell(found: list[dict[str, Any]]) -> None:
    """Cost of the passes relative to drafts from base and parents alone, by search and part of it."""
    for name in dict.fromkeys(row["search"] for row in found):
        for first, last in ((0, 12), (12, 40), (40, 100)):
            cost = {
                k: sum(
                    row["passes"] * PASS_TOKENS + row["read"]
                    for row in found
                    if row["search"] == name and row["neighbours"] == k and first <= row["trial"] < last
                )
                for k in NEIGHBOURS
            }
            if cost[0]:
                shares = " ".join(f"{cost[k] / cost[0]:.2f}" for k in NEIGHBOURS)
                print(f"{name}, trials {first} to {last}: {shares}")


def main() -> None:
    found = []
    for name in SEARCHES:
        found += rows(name, [RunFolder(DATA / name)], set(range(0, 40, 3)))
    found += rows("three random searches", [RunFolder(DATA / name) for name in POOL], set(range(2, 100, 6)))
    with open(HERE / "draft_neighbours.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    tell(found)


if __name__ == "__main__":
    sys.exit(main())
