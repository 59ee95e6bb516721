"""Do effective neurons carry a skill from one model to another, more than redundant or random ones do?

    python results/studies/transfer.py measure [--part 0/2]   # resumable, half a minute a transplant on one core
    python results/studies/transfer.py tables                 # CSV beside this file, figures on stdout

qwen3-tiny's experts, pairs and signs, in both directions. Which neurons are effective is told by the donor's own
answers to the unlabelled prompts of configs/prompts/qwen3_tiny.jsonl; accuracy, NEX, tokens and entropy are measured on
held-out problems of both kinds. Every seed has its own half of the prompts and its own random draw.
"""

import argparse
import csv
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nex_merge.engines.observe import ObserveSettings
from nex_merge.engines.transformers import CheckpointEngine
from nex_merge.inspect.models import ModelConfig, find_model
from nex_merge.inspect.transfer.copying import neuron_distances, neuron_norms, relative_change, transplanted
from nex_merge.inspect.transfer.experiment import (
    Problems,
    Transfer,
    Transplant,
    collect_evidence,
    measure,
    read_settings,
)
from nex_merge.inspect.transfer.neuron_sets import NeuronSet, choose_sets
from nex_merge.inspect.transfer.outcomes import Outcome
from nex_merge.inspect.transfer.summary import CONTRASTS, compute_effects, group_by_count, stability
from nex_merge.labels.items import builtin_items
from nex_merge.records import Credits, Evidence, SparseGroups
from nex_merge.setup.config import PromptsConfig, RuntimeConfig, find_file
from nex_merge.setup.prompts import load_prompts

HERE = Path(__file__).parent
DATA = HERE.parent / "study_data" / "transfer"
FAMILY = "qwen3-tiny"
DIRECTIONS = (("pairs", "signs"), ("signs", "pairs"))
# Of the effective there are three times as many as of the redundant, so that the largest size has no redundant set.
GRID = ((("effective", "redundant", "random", "alike"), (80, 320)), (("effective", "random"), (1000,)))
REST = 1000  # sets of this size are left out of copying everything, too: are they needed?
SEEDS = 5
PROBLEMS = 64  # of each kind
ORDER = ("effective", "random", "redundant", "alike", "all but effective", "all but random", "all")
ALL = "all"  # every neuron of every layer: what MLPs can carry at most


def settings() -> tuple[ModelConfig, ObserveSettings]:
    prompts = str(find_file("configs/prompts/qwen3_tiny.jsonl"))
    return read_settings(prompts, FAMILY, {}, 0.95, 2)


def problems() -> Problems:
    return Problems(builtin_items("qwen3-tiny", PROBLEMS, "studies"), PromptsConfig(file=""))


def work(models: dict[str, CheckpointEngine]) -> Iterator[tuple[Path, str, str, NeuronSet | None]]:
    """(file, donor, recipient, what to copy), the first seed of everything first; None: the recipient as it is."""
    plans: list[tuple[int, int, Path, str, str, NeuronSet | None]] = []
    for donor, recipient in DIRECTIONS:
        folder = DATA / f"{donor}-{recipient}"
        norms = neuron_norms(models[donor].model)
        every = np.array([layer << 16 | u for layer, own in enumerate(norms) for u in range(len(own))], np.uint32)
        plans.append((-2, 0, folder / "before.npz", donor, recipient, None))
        plans.append((-1, 0, folder / "all.npz", donor, recipient, NeuronSet(ALL, len(every), 0, every, 0.0, 0.0)))
        evidence = answered(models[donor], DATA / f"{donor}.npz")
        for sets, counts in GRID:
            for chosen in choose_sets(evidence, norms, sets, counts, SEEDS):
                file = folder / f"{chosen.neurons}-{chosen.count}-{chosen.seed}.npz"
                plans.append((chosen.seed, -chosen.count, file, donor, recipient, chosen))
                if chosen.count == REST:
                    keys = np.setdiff1d(every, chosen.keys)
                    rest = NeuronSet(f"all but {chosen.neurons}", len(keys), chosen.seed, keys, 0.0, 0.0)
                    file = folder / f"but-{chosen.neurons}-{chosen.count}-{chosen.seed}.npz"
                    plans.append((chosen.seed, -len(keys), file, donor, recipient, rest))
    for *_, file, donor, recipient, chosen in sorted(plans, key=lambda plan: plan[:2]):
        yield file, donor, recipient, chosen


def answered(donor: CheckpointEngine, file: Path) -> Evidence:
    """What the donor's answers to the prompts are worth, kept in `file`."""
    if not file.exists():
        config, how = settings()
        found = collect_evidence(donor, load_prompts(config.prompts), config.prompts, how)
        base, credits = found.base, found.credits
        save(file, prompts=found.prompts, base_ptr=base.ptr, base_keys=base.keys, masses=base.masses, ptr=credits.ptr,
             keys=credits.keys, effective=credits.effective, redundant=credits.redundant)  # fmt: skip
    kept = np.load(file)
    return Evidence(
        kept["prompts"],
        SparseGroups(kept["base_ptr"], kept["base_keys"], kept["masses"]),
        Credits(kept["ptr"], kept["keys"], kept["effective"], kept["redundant"]),
    )


def save(file: Path, **arrays: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.npz")
    np.savez(partial, **arrays)
    os.replace(partial, file)


def run(part: int, parts: int) -> None:
    """Measure what is not measured yet; one .npz each."""
    members = {name for pair in DIRECTIONS for name in pair}
    models = {name: CheckpointEngine(str(find_model(name, FAMILY, "--from")), RuntimeConfig()) for name in members}
    (_, how), asked = settings(), problems()
    for number, (file, donor, recipient, chosen) in enumerate(work(models)):
        if number % parts != part or file.exists():
            continue
        began = time.monotonic()
        giver, taker = models[donor].model, models[recipient].model
        about: dict[str, Any] = {}
        if chosen is None:
            outcome = measure(models[recipient], asked, how)
        else:
            changed = relative_change(neuron_distances(giver, taker), chosen.keys)
            about = {"chosen": {**asdict(chosen), "keys": None}, "changed": changed}
            with transplanted(giver, taker, chosen.keys):
                outcome = measure(models[recipient], asked, how)
        keys = np.zeros(0, np.uint32) if chosen is None else chosen.keys
        nex = np.array(np.nan if outcome.nex is None else outcome.nex)
        save(file, **{**asdict(outcome), "nex": nex}, keys=keys, about=np.array(json.dumps(about)))
        print(
            f"{file.parent.name}/{file.stem}: {outcome.right.mean():.3f}, {time.monotonic() - began:.0f} s", flush=True
        )


def load(file: Path) -> tuple[Outcome, Transplant | None]:
    """What was measured, and with what; no transplant for a recipient as it is."""
    stored = np.load(file)
    nex = float(stored["nex"])
    outcome = Outcome(
        stored["right"], stored["tokens"], stored["entropy"], stored["truncated"],
        None if np.isnan(nex) else nex, stored["nex_drawn"],
    )  # fmt: skip
    about = json.loads(str(stored["about"]))
    if not about:
        return outcome, None
    return outcome, Transplant(NeuronSet(**{**about["chosen"], "keys": stored["keys"]}), about["changed"], outcome)


def tables() -> None:
    kinds = problems().kinds
    rows, comparisons = [], []
    befores = {recipient: load(DATA / f"{donor}-{recipient}" / "before.npz")[0] for donor, recipient in DIRECTIONS}
    for donor, recipient in DIRECTIONS:
        folder = DATA / f"{donor}-{recipient}"
        found = [item for file in sorted(folder.glob("*.npz")) if (item := load(file)[1]) is not None]
        found.sort(key=lambda item: (item.chosen.count, ORDER.index(item.chosen.neurons), item.chosen.seed))
        # A seed counts at a size once all sets of that size are measured.
        sizes = Counter((item.chosen.count, item.chosen.seed) for item in found)
        most = {count: max(n for (c, _), n in sizes.items() if c == count) for count, _ in sizes}
        found = [i for i in found if sizes[i.chosen.count, i.chosen.seed] == most[i.chosen.count]]
        transfer = Transfer(befores[recipient], befores[donor], found)
        name = f"{donor} -> {recipient}"
        print(f"\n{name}")
        for row in compute_effects(transfer, kinds, (*CONTRASTS, ("all but effective", "all but random"))):
            comparisons.append({"transfer": name, **asdict(row)})
        for item in (None, *found):
            outcome, chosen = (befores[recipient], None) if item is None else (item.outcome, item.chosen)
            of_kind = {f"accuracy_{k}": outcome.right[np.array(kinds) == k].mean() for k in sorted(set(kinds))}
            rows.append({
                "transfer": name, "neurons": "before" if chosen is None else chosen.neurons,
                "count": 0 if chosen is None else chosen.count, "seed": None if chosen is None else chosen.seed,
                "accuracy": outcome.right.mean(), **of_kind, "nex": outcome.nex, "tokens": outcome.tokens.mean(),
                "entropy": outcome.entropy.mean(), "truncated": outcome.truncated.mean(),
                "changed": None if item is None else item.changed,
                "mean_norm": None if chosen is None else chosen.mean_norm,
                "mean_mass": None if chosen is None else chosen.mean_mass,
                "layers": "" if chosen is None else " ".join(f"{k}:{v}" for k, v in chosen.layers.items()),
                "right": "".join("01"[int(r)] for r in outcome.right),
            })  # fmt: skip
        for count, sets in group_by_count(found).items():
            for own, items in sets.items():
                about = [np.mean([getattr(i.chosen, part) for i in items]) for part in ("mean_norm", "mean_mass")]
                layers = np.mean([[i.chosen.layers.get(layer, 0) for layer in range(4)] for i in items], axis=0)
                changed, alike = np.mean([i.changed for i in items]), stability(items)
                print(f"| {count} | {own} | {about[0]:.2f} | {about[1]:.0f} | {changed:.2f} | {alike or 0:.2f} | "
                      f"{', '.join(f'{n:.0f}' for n in layers)} |")  # fmt: skip
    for name, found in (("transfer.csv", rows), ("transfer_comparisons.csv", comparisons)):
        with open(HERE / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in found)
    _print(comparisons)


def _print(comparisons: list[dict[str, Any]]) -> None:
    """The comparisons as a Markdown table, a measure a column; the CSV has every measure."""
    measures = ("accuracy pairs", "accuracy signs", "nex", "tokens")
    cells: dict[tuple[str, int, str], dict[str, str]] = {}
    for row in comparisons:
        own = cells.setdefault((row["transfer"], row["count"], row["neurons"]), {})
        digits = 0 if row["measure"] == "tokens" else 2
        if row["change"] is not None:
            span = "" if row["low"] is None else f" [{row['low']:+.{digits}f}, {row['high']:+.{digits}f}]"
            own[row["measure"]] = f"{row['change']:+.{digits}f}{span}"
    print("\n| transfer | K | neurons | " + " | ".join(measures) + " |\n|" + "---|" * (3 + len(measures)))
    for (transfer, count, neurons), own in cells.items():
        print(f"| {transfer} | {count} | {neurons} | " + " | ".join(own.get(m, "-") for m in measures) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("measure").add_argument("--part", default="0/1", help="K/N: only every N-th, from the K-th on")
    commands.add_parser("tables")
    args = parser.parse_args()
    if args.command == "measure":
        part, parts = map(int, args.part.split("/"))
        run(part, parts)
    else:
        tables()


if __name__ == "__main__":
    main()
