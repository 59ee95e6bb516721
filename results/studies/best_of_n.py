"""Choosing one of several answers: does NEX pick the right one more often than chance, votes or simpler figures?

    python results/studies/best_of_n.py temperature   # which temperature each model gets, on problems of their own
    python results/studies/best_of_n.py measure       # draw and capture, resumable
    python results/studies/best_of_n.py tables        # CSV beside this file, figures on stdout

The models are merges of qwen3-tiny's `pairs` and `signs` by task arithmetic whose greedy accuracy leaves something to
choose (nex_merge/families/qwen3_tiny/figures.json). The problems are of seeds that nothing else uses: 1 gave the
search's prompts, 2 the held-out benchmark, 3 the family's own figures.
"""

import argparse
import csv
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nex_merge.config import ActivationsConfig, GenerationConfig, PromptsConfig
from nex_merge.families import read_family
from nex_merge.families.qwen3_tiny.measure import Bench
from nex_merge.families.qwen3_tiny.problems import KINDS, Problem, make_problems
from nex_merge.generation import generate
from nex_merge.prompts import encode_prompts
from nex_merge.records import Credits, Prompt, Response, SparseGroups, TokenStats
from nex_merge.selecting.accuracy import RANDOM, Outcome, draw_sets, outcomes, summarize
from nex_merge.selecting.selection import Measured, conclusion_of, gather, is_empty, measure
from nex_merge.selecting.selectors import Candidates, score_sets

HERE = Path(__file__).parent
DATA = HERE.parent / "study_data" / "best-of-n"
MODELS = {"0.75-0.75": (0.75, 0.75), "1.0-0.75": (1.0, 0.75)}  # weights of pairs and signs
TEMPERATURE_SEED, PROBLEMS_SEED = 4, 5
TEMPERATURES = (0.4, 0.7, 1.0, 1.3)
TEMPERATURE_FILE = HERE / "best_of_n_temperature.csv"
PER_KIND, SAMPLES = 64, 16
CHUNK = 16  # problems that are measured together, and kept once they are
MAX_NEW_TOKENS = 640
RHO, MIN_RUN = 0.95, 2
SIZES = (2, 4, 8, 16)


def problems(per_kind: int, seed: int) -> list[Problem]:
    """Kinds take turns, so that a study that was cut short has as many of each."""
    return [problem for both in zip(*(make_problems(kind, per_kind, seed) for kind in KINDS), strict=True)
            for problem in both]  # fmt: skip


def draw(bench: Bench, items: Sequence[Problem], temperature: float, samples: int, seed: int) -> list[Response]:
    prompts = [Prompt(({"role": "user", "content": item.prompt},), item.prompt) for item in items]
    settings = GenerationConfig(
        max_new_tokens=MAX_NEW_TOKENS, temperature=temperature, samples=samples, seed=seed, batch_tokens=131_072
    )
    encoded = encode_prompts(prompts, bench.tokenizer, PromptsConfig(file=""))
    return generate(bench.merger.model, bench.tokenizer, encoded, settings)


def judge(items: Sequence[Problem], responses: Sequence[Response]) -> np.ndarray:
    return np.array([items[response.prompt].is_right(response.text) for response in responses])


def choose_temperatures(per_kind: int = 8, samples: int = 8) -> None:
    """The rule, fixed beforehand: where the oracle exceeds a random choice most."""
    items, bench = problems(per_kind, TEMPERATURE_SEED), Bench(1)
    rows: list[dict[str, Any]] = []
    for name, weights in MODELS.items():
        bench.merger.load(bench.grid_recipe(*weights))
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


def chunk_file(model: str, number: int) -> Path:
    return DATA / f"{model}-{number:02d}.npz"


def measure_models() -> None:
    """Draw, judge and capture, a chunk of problems at a time, models in turn."""
    items, bench = problems(PER_KIND, PROBLEMS_SEED), Bench(1)
    activations = ActivationsConfig(**read_family("qwen3-tiny")[0].defaults["activations"])
    DATA.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(items), CHUNK)):
        for name, weights in MODELS.items():
            file = chunk_file(name, number)
            if file.exists():
                continue
            bench.merger.load(bench.grid_recipe(*weights))
            part, seconds = items[start : start + CHUNK], {}
            began = time.perf_counter()
            # A seed of its own, as the noise of a response comes from its place in the chunk.
            responses = draw(bench, part, chosen_temperature(name), SAMPLES, seed=number)
            seconds["draw"] = time.perf_counter() - began
            found = measure(bench.merger.model, responses, activations, RHO, MIN_RUN, seconds)
            right = judge(part, responses)
            save(file, responses, found, right, seconds)
            tokens = sum(len(response.token_ids) for response in responses)
            print(f"{file.stem}: {tokens} tokens, {right.mean():.3f} right, {seconds}", flush=True)


def save(
    file: Path, responses: Sequence[Response], found: Measured, right: np.ndarray, seconds: dict[str, float]
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
    found: Measured
    right: np.ndarray  # bool [R]
    seconds: dict[str, float]

    def candidates(self, calibration: str) -> Candidates:
        said = [conclusion_of(response, "exact", True) for response in self.responses]
        return gather(self.responses, self.found, said, calibration)


def load(model: str, chunks: int) -> Drawn:
    responses: list[Response] = []
    stats: list[TokenStats | None] = []
    seconds: dict[str, float] = {}
    arrays: dict[str, list[np.ndarray]] = {}
    for number in range(chunks):
        with np.load(chunk_file(model, number)) as file:
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
    return Drawn(responses, Measured(base, credits, stats), joined["right"], seconds)


def concordance(scores: Sequence[np.ndarray], right: np.ndarray, starts: np.ndarray) -> tuple[float, int]:
    """Share of pairs of a right and a wrong candidate of a problem in which the right one scores higher, ties half,
    averaged over the problems that have both; and how many these are. An undefined score is the lowest."""
    found = []
    for own, low, high in zip(scores, starts[:-1], starts[1:], strict=True):
        score, good = np.nan_to_num(own, nan=-np.inf), right[low:high]
        if good.any() and not good.all():
            above = score[good][:, None] > score[~good][None]
            level = score[good][:, None] == score[~good][None]
            found.append(float((above + 0.5 * level).mean()))
    return float(np.mean(found)), len(found)


def compared(drawn: Drawn) -> Iterator[tuple[int, int, dict[str, Outcome]]]:
    """(N, sets, outcomes) with NEX under both calibrations."""
    pool, prompt = drawn.candidates("pool"), drawn.candidates("prompt")
    for size in SIZES:
        sets = draw_sets(pool.starts, size)
        found = outcomes(pool, drawn.right, sets)
        yield size, len(sets[0]), {**found, "nex, prompt": outcomes(prompt, drawn.right, sets)["nex"]}


def tables() -> None:
    chunks = min(sum(chunk_file(model, n).exists() for n in range(2 * PER_KIND // CHUNK)) for model in MODELS)
    items = problems(PER_KIND, PROBLEMS_SEED)[: chunks * CHUNK]
    kinds = np.array([item.kind for item in items])
    rows, about = [], []
    everything: dict[int, list[dict[str, Outcome]]] = {size: [] for size in SIZES}
    for model in MODELS:
        drawn = load(model, chunks)
        began = time.perf_counter()
        candidates = drawn.candidates("pool")
        whole = score_sets(candidates, candidates.whole())
        choosing = time.perf_counter() - began
        prompt = drawn.candidates("prompt")
        whole = {**whole, "nex, prompt": score_sets(prompt, prompt.whole())["nex"]}
        auc = {name: concordance([s[0] for s in own], drawn.right, candidates.starts) for name, own in whole.items()}
        by_problem = drawn.right.reshape(len(items), SAMPLES)
        about.append({
            "model": model, "problems": len(items), "responses": len(drawn.responses), "right": drawn.right.mean(),
            **{kind: by_problem[kinds == kind].mean() for kind in KINDS},
            "mixed": ((by_problem.any(1)) & ~by_problem.all(1)).mean(),
            "different": len({(r.prompt, r.text) for r in drawn.responses}) / len(drawn.responses),
            "tokens": np.mean([len(r.token_ids) for r in drawn.responses]),
            "truncated": np.mean([r.truncated for r in drawn.responses]),
            "empty": sum(is_empty(r) for r in drawn.responses),
            "credited": np.mean(np.diff(drawn.found.credits.ptr) > 0),
            **{f"seconds_{key}": value for key, value in drawn.seconds.items()}, "seconds_choose": choosing,
        })  # fmt: skip
        for size, sets, found in compared(drawn):
            everything[size].append(found)
            rows += described(model, "both", size, sets, found, auc if size == SAMPLES else {})
            for kind in KINDS:
                own = {name: Outcome(o.right[kinds == kind], o.undecided[kinds == kind]) for name, o in found.items()}
                rows += described(model, kind, size, sets, own, {})
    for size, found in everything.items():
        mean = {name: Outcome(*(np.mean([getattr(one[name], part) for one in found], axis=0)
                                for part in ("right", "undecided"))) for name in found[0]}  # fmt: skip
        rows += described("mean of models", "both", size, 1 if size == SAMPLES else 64, mean, {})
    write_csv(HERE / "best_of_n.csv", rows)
    write_csv(HERE / "best_of_n_models.csv", about)
    printed(rows, about)


def described(
    model: str, kind: str, size: int, sets: int, found: dict[str, Outcome], auc: dict[str, tuple[float, int]]
) -> list[dict[str, Any]]:
    # Gains over the vote are paired over problems as those over a random choice are.
    voted = summarize({**found, RANDOM: found["majority"]}, size, sets).selectors
    rows = []
    for name, own in summarize(found, size, sets).selectors.items():
        over = voted[name] if name != RANDOM else None
        concordant, mixed = auc.get(name, ("", ""))
        rows.append({
            "model": model, "kind": kind, "candidates": size, "selector": name, **dataclasses.asdict(own),
            "over_vote": "" if over is None else over.gain, "over_vote_low": "" if over is None else over.gain_low,
            "over_vote_high": "" if over is None else over.gain_high, "auc": concordant, "mixed_problems": mixed,
        })  # fmt: skip
    return rows


def printed(rows: Sequence[dict[str, Any]], about: Sequence[dict[str, Any]]) -> None:
    for item in about:
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in item.items()})
    for model in [*MODELS, "mean of models"]:
        for kind in ("both", *KINDS):
            own = [row for row in rows if row["model"] == model and row["kind"] == kind]
            if not own:
                continue
            print(
                f"\n{model}, {kind}\n| selector | "
                + " | ".join(f"N = {size}" for size in SIZES)
                + " | auc | undecided |"
            )
            for name in dict.fromkeys(row["selector"] for row in own):
                line = [row for row in own if row["selector"] == name]
                cells = [f"{row['accuracy']:.3f} {row['gain']:+.3f} [{row['gain_low']:+.3f}, {row['gain_high']:+.3f}]"
                         for row in line]  # fmt: skip
                auc = line[-1]["auc"]
                open_ = " ".join(f"{row['undecided']:.2f}" for row in line)
                print(f"| {name} | " + " | ".join(cells) + f" | {auc if auc == '' else f'{auc:.2f}'} | {open_} |")


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


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
        measure_models()
    else:
        tables()


if __name__ == "__main__":
    main()
