"""Merging: `mergekit-yaml` and loading what it wrote, against a variant in the resident model."""

import copy
import gc
import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from benchmarks.measured import Comparison, PeakMemory, alternating, timed
from benchmarks.shapes import make_family
from nex_merge.merging import Merger
from nex_merge.records import MergeRecipe
from nex_merge.runs.proof import checkpoint_digest

Baseline = Callable[[MergeRecipe, Path], Any]
GOALS = {
    "ties": 20, "dare_ties": 5, "della": 5, "breadcrumbs": 15, "task_arithmetic": 8, "linear": 8, "slerp": 8,
}  # fmt: skip

# What a merge reads at least, and how many times longer it may take than reading that and writing the variant.
LIMITS = {"linear": (("a", "b"), "2x"), "ties": (("base", "a", "b"), "4x")}


def recipe(method: str, folders: dict[str, Path], number: int) -> MergeRecipe:
    """The number-th variant of a method: every one has its own densities, weights and seed."""
    density, weight = 0.3 + 0.05 * (number % 8), 0.4 + 0.05 * (number % 8)
    of = {"weight": weight}
    if method not in ("linear", "slerp", "task_arithmetic"):
        of["density"] = density
    if method == "della":
        of["epsilon"] = 0.1
    models: list[dict[str, Any]] = [{"model": str(folders[name]), "parameters": of} for name in ("a", "b")]
    config: dict[str, Any] = {"merge_method": method, "models": models, "dtype": "float32", "out_dtype": "bfloat16"}
    if method == "slerp":
        config |= {"base_model": str(folders["a"]), "parameters": {"t": weight}}
        config["models"] = [{"model": str(folders[name])} for name in ("a", "b")]
    elif method != "linear":
        config["base_model"] = str(folders["base"])
    return MergeRecipe("merge", method, config, number)


def by_command(made: MergeRecipe, out: Path) -> Any:
    """As a user does it: a process of mergekit-yaml, then from_pretrained."""
    from transformers import AutoModelForCausalLM

    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(made.config))
    code = "from mergekit.scripts.run_yaml import main; main()"
    command = [sys.executable, "-c", code, str(file), str(out), "--random-seed", str(made.seed)]
    command += ["--cuda"] if torch.cuda.is_available() else []
    subprocess.run(command, check=True, capture_output=True)
    return AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()


def by_function(made: MergeRecipe, out: Path) -> Any:
    """The same without starting Python and importing: mergekit's own function, then from_pretrained."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions
    from transformers import AutoModelForCausalLM

    config = MergeConfiguration.model_validate(copy.deepcopy(dict(made.config)))
    run_merge(config, str(out), MergeOptions(random_seed=made.seed, quiet=True))
    return AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()


def compare(
    shape: str,
    root: Path,
    runs: int,
    again: int,
    baseline: Baseline,
    methods: Sequence[str],
    limits: Mapping[str, tuple[Sequence[str], str]] = MappingProxyType({}),
) -> Iterator[Comparison]:
    """Every method: the first variant, whose orders are built, then as many as there are runs by hand.

    Of ours, `again` more are timed after each run. Methods in `limits` are then held against reading and writing alone.
    """
    folders = make_family(shape, root)
    for method in methods:
        merger = Merger(folders, "base", "cpu", torch.float32)
        merger.keep_ranks(root / "orders")
        yield _compare(method, shape, folders, root, runs, again, baseline, merger)
        if method in limits:
            yield _limit(method, shape, folders, merger, *limits[method])
        del merger
        gc.collect()
        for folder in ("merged", "orders"):
            shutil.rmtree(root / folder, ignore_errors=True)


def _compare(
    method: str, shape: str, folders: dict[str, Path], root: Path, runs: int, more_of_ours: int, baseline: Baseline,
    merger: Merger,
) -> Comparison:  # fmt: skip
    out, ranks = root / "merged", root / "orders"

    def ours(number: int) -> tuple[float, str]:
        made = recipe(method, folders, number)
        return timed(lambda: merger.load(made))

    parents = sum(file.stat().st_size for folder in folders.values() for file in folder.glob("*.safetensors"))
    against = f"{baseline.__name__} + from_pretrained"
    found = Comparison(f"merge {method}, {shape}", against, [], [], f"{GOALS[method]}x")
    with PeakMemory() as peak:
        first, _ = ours(0)
    for number in range(1, runs + 1):
        made = recipe(method, folders, number)
        shutil.rmtree(out, ignore_errors=True)
        found.baseline.append(timed(lambda made=made: baseline(made, out))[0])
        with PeakMemory() as again:
            seconds, digest = ours(number)
        found.ours.append(seconds)
        peak.own, peak.resident = max(peak.own, again.own), max(peak.resident, again.resident)
        assert digest == checkpoint_digest(out), f"{method}: not the bits of mergekit"
        # Seconds against minutes: what stands once beside a single run by hand is the median of several variants.
        found.ours += [ours(number + runs * more)[0] for more in range(1, more_of_ours + 1)]
    found.notes = {
        "first_trial_seconds": first,
        "first_trial_over_baseline": first / found.baseline[0],
        "orders_bytes": sum(file.stat().st_size for file in ranks.glob("*")) if ranks.exists() else 0,
        "peak_own_over_parents": peak.own / parents,
        "peak_resident_over_parents": peak.resident / parents,
        "same_bits": True,
    }
    return found


def _limit(
    method: str, shape: str, folders: dict[str, Path], merger: Merger, members: Sequence[str], goal: str
) -> Comparison:
    """Merging against the time it takes to read the parents once and write the variant once."""
    parameters = dict(merger.model.named_parameters())
    mapped = [load_file(folders[name] / "model.safetensors") for name in members]

    def floor() -> None:
        for name, parameter in parameters.items():
            for other in mapped[1:]:
                other[name].view(torch.int16).sum()  # reads it
            parameter.copy_(mapped[0][name])  # reads one, writes the variant

    floor()  # maps what is not mapped yet
    numbers = itertools.count(1)
    what, against = f"limit of {method}, {shape}", "parents read once, variant written once"
    return alternating(what, against, floor, lambda: merger.load(recipe(method, folders, next(numbers))), goal)
