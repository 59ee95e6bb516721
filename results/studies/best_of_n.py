"""Choosing one of several answers: does NEX pick the right one more often than chance, votes or simpler figures?

    python results/studies/best_of_n.py temperature   # which temperature each model gets, on problems of their own
    python results/studies/best_of_n.py measure       # draw and capture, resumable
    python results/studies/best_of_n.py tables        # CSV beside this file, figures on stdout

The models are merges of qwen3-tiny's `pairs` and `signs` by task arithmetic whose greedy accuracy leaves something to
choose (toy/figures.json). The problems are of seeds that nothing else uses: 1 gave the
search's prompts, 2 the held-out benchmark, 3 the family's own figures.
"""

import argparse
import csv
import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from nex_merge.engines.observe import ObserveSettings, observe
from nex_merge.families.qwen3_tiny.problems import KINDS, Problem, make_problems
from nex_merge.inspect.select.accuracy import RANDOM, SelectorOutcome, draw_sets, selector_outcomes, summarize
from nex_merge.inspect.select.question_file import TEMPERATURE
from nex_merge.inspect.select.rules import ranking
from nex_merge.inspect.select.selection import (
    CandidateEvidence,
    build_candidates,
    conclusion_of,
    is_empty,
    observe_candidates,
)
from nex_merge.inspect.select.selectors import Candidates, score_sets
from nex_merge.records import Credits, Prompt, Response, SparseGroups, TokenStats
from nex_merge.setup.config import GenerationConfig, PhasesConfig, PromptsConfig
from toy.measure import Bench

HERE = Path(__file__).parent
DATA = HERE.parent / "study_data" / "best-of-n"
MODELS = {"0.75-0.75": (0.75, 0.75), "1.0-0.75": (1.0, 0.75)}  # weights of pairs and signs
# Beside the temperature that the rule gives, the one that `nex-merge select` draws at unless told otherwise.
DEFAULT = TEMPERATURE
RUNS = {"0.75-0.75": None, "1.0-0.75": None, f"0.75-0.75-at-{DEFAULT}": DEFAULT, f"1.0-0.75-at-{DEFAULT}": DEFAULT}
TEMPERATURE_SEED, PROBLEMS_SEED = 4, 5
TEMPERATURES = (0.4, 0.7, 1.0, 1.3)
TEMPERATURE_FILE = HERE / "best_of_n_temperature.csv"
PER_KIND, SAMPLES = 64, 16
CHUNK = 16  # problems that are measured together, and kept once they are
MAX_NEW_TOKENS = 640
RHO, MIN_RUN = 0.95, 2
SIZES = (2, 4, 8, 16)
FINISHED = "any that finished"


def problems(per_kind: int, seed: int) -> list[Problem]:
    """Kinds take turns, so that a study that was cut short has as many of each."""
    return [problem for both in zip(*(make_problems(kind, per_kind, seed) for kind in KINDS), strict=True)
            for problem in both]  # fmt: skip


def draw(bench: Bench, items: Sequence[Problem], temperature: float, samples: int, seed: int) -> list[Response]:
    prompts = [Prompt(({"role": "user", "content": item.prompt},), item.prompt) for item in items]
    settings = GenerationConfig(
        max_new_tokens=MAX_NEW_TOKENS, temperature=temperature, samples=samples, seed=seed, batch_tokens=131_072
    )
    encoded = bench.engine.encode(prompts, PromptsConfig(file=""), MAX_NEW_TOKENS)
    return list(observe(bench.engine, encoded, ObserveSettings(settings, None, PhasesConfig())).responses)


def judge(items: Sequence[Problem], responses: Sequence[Response]) -> np.ndarray:
    return np.array([items[response.prompt].is_right(response.text) for response in responses])


def choose_temperatures(per_kind: int = 8, samples: int = 8) -> None:
    """The rule, fixed beforehand: where the oracle exceeds a random choice most."""
    items, bench = problems(per_kind, TEMPERATURE_SEED), Bench(1)
    rows: list[dict[str, Any]] = []
    for name, weights in MODELS.items():
        bench.engine.load(bench.grid_recipe(*weights))
        for temperature in TEMPERATURES:
            right = judge(items, draw(bench, items, temperature, samples, seed=0)).reshape(len(items), samples)
            row = {"model": name, "temperature": temperature}
            rows.append({**row, "random": float(right.mean()), "oracle": float(right.any(axis=1).mean())})
            print(rows[-1], flush=True)
    write_csv(TEMPERATURE_FILE, rows)


def chosen_temperature(model: str) -> float:
    with open(TEMPERATURE_FILE, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == model]
    return float(max(rows, key=lambda row: float(row["oracle"]) - float(row["random"]))["temperature"])


def model_of(run: str) -> str:
    return run.partition("-at-")[0]


def chunk_file(run: str, number: int) -> Path:
    return DATA / f"{run}-{number:02d}.npz"


def measure_runs() -> None:
    """Draw, judge and capture, a chunk of problems at a time: first at the chosen temperatures, then at the default."""
    items, bench = problems(PER_KIND, PROBLEMS_SEED), Bench(1)
    settings = ObserveSettings(bench.generation, bench.activations, PhasesConfig(rho=RHO, min_run=MIN_RUN))
    DATA.mkdir(parents=True, exist_ok=True)
    work = [(run, number) for given in (False, True) for number in range(len(items) // CHUNK)
            for run, temperature in RUNS.items() if (temperature is not None) == given]  # fmt: skip
    for run, number in work:
        file, model = chunk_file(run, number), model_of(run)
        if not file.exists():
            bench.engine.load(bench.grid_recipe(*MODELS[model]))
            part, seconds = items[number * CHUNK : (number + 1) * CHUNK], {}
            began = time.perf_counter()
            # A seed of its own, as the noise of a response comes from its place in the chunk.
            temperature = RUNS[run] or chosen_temperature(model)
            responses = draw(bench, part, temperature, SAMPLES, seed=number)
            seconds["draw"] = time.perf_counter() - began
            found = observe_candidates(bench.engine, responses, settings)
            seconds |= {"capture": found.seconds["capture"], "credit": found.seconds["score"]}
            right = judge(part, responses)
            save(file, responses, found, right, seconds)
            tokens = sum(len(response.token_ids) for response in responses)
            print(f"{file.stem}: {tokens} tokens, {right.mean():.3f} right, {seconds}", flush=True)


def save(
    file: Path, responses: Sequence[Response], found: CandidateEvidence, right: np.ndarray, seconds: dict[str, float]
) -> None:
    partial = file.with_suffix(".partial.npz")
    stats = [None if item is None else dataclasses.asdict(item) for item in found.stats]
    about = {"responses": [dataclasses.asdict(response) for response in responses], "stats": stats, "seconds": seconds}
    np.savez_compressed(
        partial, about=np.array(json.dumps(about)), right=right,
        base_ptr=found.base.ptr, base_keys=found.base.keys, base_masses=found.base.masses,
        ptr=found.credits.ptr, keys=found.credits.keys, effective=found.credits.effective,
        redundant=found.credits.redundant,
    )  # fmt: skip
    os.replace(partial, file)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """All that was measured of a model."""

    responses: list[Response]
    found: CandidateEvidence
    right: np.ndarray  # bool [R]
    seconds: dict[str, float]

    def candidates(self) -> Candidates:
        said = [conclusion_of(response, "text", True) for response in self.responses]
        return build_candidates(self.responses, self.found, said)


def load(run: str, chunks: int) -> Drawn:
    responses: list[Response] = []
    stats: list[TokenStats | None] = []
    seconds: dict[str, float] = {}
    arrays: dict[str, list[np.ndarray]] = {}
    for number in range(chunks):
        with np.load(chunk_file(run, number)) as file:
            about = json.loads(str(file["about"]))
            for key in file.files:
                if key != "about":
                    arrays.setdefault(key, []).append(file[key])
        for item in about["responses"]:
            ids = {key: tuple(item[key]) for key in ("prompt_ids", "token_ids")}
            responses.append(Response(**{**item, **ids, "prompt": item["prompt"] + number * CHUNK}))
        stats += [None if item is None else TokenStats(**item) for item in about["stats"]]
        for key, value in about["seconds"].items():
            seconds[key] = seconds.get(key, 0) + value
    joined = {key: np.concatenate(parts) for key, parts in arrays.items() if not key.endswith("ptr")}
    for key in ("base_ptr", "ptr"):
        joined[key] = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part) for part in arrays[key]]))])
    base = SparseGroups(joined["base_ptr"], joined["base_keys"], joined["base_masses"])
    credits = Credits(joined["ptr"], joined["keys"], joined["effective"], joined["redundant"])
    return Drawn(responses, CandidateEvidence(base, credits, stats), joined["right"], seconds)


def concordance(scores: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> tuple[float, int]:
    """Share of pairs of a right and a wrong candidate of a problem in which the right one scores higher, ties half,
    averaged over the problems that have both; and how many these are. An undefined score is the lowest."""
    found = []
    for own, good in zip(scores, right, strict=True):
        score = np.nan_to_num(own, nan=-np.inf)
        if good.any() and not good.all():
            above = score[good][:, None] > score[~good][None]
            level = score[good][:, None] == score[~good][None]
            found.append(float((above + 0.5 * level).mean()))
    return float(np.mean(found)), len(found)


def scored(drawn: Drawn, candidates: Candidates, sets: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """What selectors score these sets, NEX under both calibrations."""
    by_prompt = dataclasses.replace(candidates, calibration="prompt")
    return {**score_sets(candidates, sets), "nex, prompt": score_sets(by_prompt, sets)["nex"]}


def only_finished(
    scores: dict[str, list[np.ndarray]], candidates: Candidates, sets: Sequence[np.ndarray]
) -> dict[str, list[np.ndarray]]:
    """The same scores where only a candidate that came to a conclusion may be picked; and a random choice of those."""
    scores = {**scores, FINISHED: [np.zeros(own.shape) for own in sets]}
    return {
        name: [np.where(candidates.conclusions[own] < 0, np.nan, s) for s, own in zip(given, sets, strict=True)]
        for name, given in scores.items()
    }


def tables() -> None:
    every = problems(PER_KIND, PROBLEMS_SEED)
    rows, about, ranks = [], [], []
    for run in RUNS:
        chunks = sum(chunk_file(run, number).exists() for number in range(len(every) // CHUNK))
        if not chunks:
            continue
        drawn, items = load(run, chunks), every[: chunks * CHUNK]
        kinds = np.array([item.kind for item in items])
        candidates = drawn.candidates()
        began = time.perf_counter()
        sets = candidates.whole()
        score_sets(candidates, sets)
        choosing = time.perf_counter() - began
        whole = scored(drawn, candidates, sets)
        finished = only_finished(whole, candidates, sets)
        lengths = np.array([len(response.token_ids) for response in drawn.responses])
        by_problem = drawn.right.reshape(len(items), SAMPLES)
        about.append({
            "run": run, "temperature": RUNS[run] or chosen_temperature(model_of(run)), "problems": len(items),
            "responses": len(drawn.responses), "right": drawn.right.mean(),
            **{kind: by_problem[kinds == kind].mean() for kind in KINDS},
            "mixed": (by_problem.any(axis=1) & ~by_problem.all(axis=1)).mean(),
            "different": len({(r.prompt, r.text) for r in drawn.responses}) / len(drawn.responses),
            "tokens": lengths.mean(),
            "tokens_right": lengths[drawn.right].mean(), "tokens_wrong": lengths[~drawn.right].mean(),
            **alike(candidates, whole["nex"], drawn.right, "right"),
            **alike(candidates, whole["nex"], ~drawn.right, "wrong"),
            "concluding": np.mean(candidates.conclusions >= 0),
            "truncated": np.mean([r.truncated for r in drawn.responses]),
            "empty": sum(is_empty(r) for r in drawn.responses),
            "credited": np.mean(np.diff(drawn.found.credits.ptr) > 0),
            **{f"seconds_{key}": value for key, value in drawn.seconds.items()}, "seconds_choose": choosing,
        })  # fmt: skip
        for name, given in whole.items():
            placed = np.array([drawn.right[own[0]][ranking(s[0])] for s, own in zip(given, sets, strict=True)])
            ranks.append({"run": run, "selector": name, **{str(i): v for i, v in enumerate(placed.mean(axis=0), 1)}})
        more = {name: described_picks(whole[name], finished[name], drawn, lengths, sets) for name in whole}
        for size in SIZES:
            sets = draw_sets(candidates.starts, size)
            scores = scored(drawn, candidates, sets)
            found = selector_outcomes(scores, candidates, drawn.right, sets)
            ended = selector_outcomes(only_finished(scores, candidates, sets), candidates, drawn.right, sets)
            for kind in ("both", *KINDS):
                kept = np.isin(kinds, [kind]) | (kind == "both")
                extra = more if kind == "both" and size == SAMPLES else {}
                rows += described({"run": run, "kind": kind}, size, cut(found, kept), cut(ended, kept), extra)
    write_csv(HERE / "best_of_n.csv", rows)
    write_csv(HERE / "best_of_n_runs.csv", about)
    write_csv(HERE / "best_of_n_ranks.csv", ranks)  # share of right answers by their rank among 16
    printed(rows, about)


def cut(found: dict[str, SelectorOutcome], kept: np.ndarray) -> dict[str, SelectorOutcome]:
    return {name: SelectorOutcome(outcome.right[kept], outcome.undecided[kept]) for name, outcome in found.items()}


def alike(candidates: Candidates, nex: Sequence[np.ndarray], kept: np.ndarray, name: str) -> dict[str, float]:
    """How much alike the kept candidates of a problem are: the Jaccard similarity of their neurons, and the standard
    deviation of their NEX; means over the problems that have two of them."""
    similar, spread = [], []
    for p, low in enumerate(candidates.starts[:-1]):
        own = np.flatnonzero(kept[low : low + SAMPLES])
        if len(own) > 1:
            similar.append(candidates.similarity[p][np.ix_(own, own)][~np.eye(len(own), dtype=bool)].mean())
            spread.append(nex[p][0][own].std())
    return {f"jaccard_{name}": float(np.nanmean(similar)), f"nex_spread_{name}": float(np.nanmean(spread))}


def described_picks(
    scores: list[np.ndarray], finished: list[np.ndarray], drawn: Drawn, lengths: np.ndarray, sets: list[np.ndarray]
) -> dict[str, Any]:
    """Of 16 candidates: whether right ones score higher, whether long ones do, and what is picked."""
    own, rest = [s[0] for s in scores], [s[0] for s in finished]
    picked = [int(ids[0][ranking(s)[0]]) for s, ids in zip(own, sets, strict=True)]
    tied = [spearman(s, lengths[ids[0]]) for s, ids in zip(own, sets, strict=True)]
    known = [value for value in tied if value is not None]
    rights = [drawn.right[ids[0]] for ids in sets]
    # A finished candidate beside finished ones alone.
    some = [~np.isnan(s) for s in rest]
    auc, mixed = concordance(own, rights)
    return {
        "auc": auc, "mixed_problems": mixed,
        "auc_finished": concordance([s[k] for s, k in zip(rest, some, strict=True)],
                                    [r[k] for r, k in zip(rights, some, strict=True)])[0],
        "spearman_with_tokens": float(np.mean(known)), "picked_tokens": lengths[picked].mean(),
        "picked_cut": np.mean([drawn.responses[i].truncated for i in picked]),
    }  # fmt: skip


def spearman(scores: np.ndarray, lengths: np.ndarray) -> float | None:
    known = ~np.isnan(scores)
    if known.sum() < 3 or np.ptp(scores[known]) == 0 or np.ptp(lengths[known]) == 0:
        return None
    return float(spearmanr(scores[known], lengths[known])[0])


def described(
    about: dict[str, str],
    size: int,
    found: dict[str, SelectorOutcome],
    ended: dict[str, SelectorOutcome],
    more: dict[str, Any],
) -> list[dict[str, Any]]:
    # Gains over the vote are paired over problems as those over a random choice are.
    voted = summarize({**found, FINISHED: ended[FINISHED], RANDOM: found["majority"]}, size, 1).selectors
    finished = summarize({**ended, RANDOM: found[RANDOM]}, size, 1).selectors
    rows = []
    for name, own in summarize({**found, FINISHED: ended[FINISHED]}, size, 1).selectors.items():
        over, rest = voted[name], finished[name]
        known = name != RANDOM
        rows.append({
            **about, "candidates": size, "selector": name, **dataclasses.asdict(own),
            **{f"over_vote{end}": getattr(over, f"gain{end}") if known else "" for end in ("", "_low", "_high")},
            "finished_accuracy": rest.accuracy if known else "",
            **{f"finished_gain{end}": getattr(rest, f"gain{end}") if known else "" for end in ("", "_low", "_high")},
            **{key: more.get(name, {}).get(key, "") for key in
               ("auc", "mixed_problems", "auc_finished", "spearman_with_tokens", "picked_tokens", "picked_cut")},
        })  # fmt: skip
    return rows


def printed(rows: Sequence[dict[str, Any]], about: Sequence[dict[str, Any]]) -> None:
    for item in about:
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in item.items()})
    for run in dict.fromkeys(row["run"] for row in rows):
        for kind in ("both", *KINDS):
            own = [row for row in rows if row["run"] == run and row["kind"] == kind]
            for gain, accuracy in (("gain", "accuracy"), ("finished_gain", "finished_accuracy")):
                print(f"\n{run}, {kind}, {gain}\n| selector | " + " | ".join(f"N = {size}" for size in SIZES) + " |")
                for name in dict.fromkeys(row["selector"] for row in own):
                    mine = [row for row in own if row["selector"] == name and row[gain] != ""]
                    cells = [f"{row[accuracy]:.3f} {row[gain]:+.3f} "
                             f"[{row[f'{gain}_low']:+.3f}, {row[f'{gain}_high']:+.3f}]" for row in mine]  # fmt: skip
                    print(f"| {name} | " + " | ".join(cells) + " |")
            for row in own:
                if row["auc"] != "":
                    shown = {key: f"{row[key]:.3f}" for key in list(row)[-6:]}
                    print(f"| {row['selector']} | over vote {row['over_vote']:+.3f} "
                          f"[{row['over_vote_low']:+.3f}, {row['over_vote_high']:+.3f}] {shown}")  # fmt: skip
            for size in SIZES:
                print(size, "undecided", {row["selector"]: round(row["undecided"], 2) for row in own
                                          if row["candidates"] == size})  # fmt: skip


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.5f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("temperature")
    commands.add_parser("measure")
    commands.add_parser("tables")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "temperature":
        choose_temperatures()
    elif args.command == "measure":
        measure_runs()
    else:
        tables()


if __name__ == "__main__":
    main()
