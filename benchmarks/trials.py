"""A whole trial against what a user would do by hand; many trials in one process; the time to start."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.by_hand import by_hand
from benchmarks.measured import Comparison, PeakMemory, alternating, children_peak, timed
from benchmarks.merging import recipe
from benchmarks.shapes import make_family
from nex_merge.engines.choice import engine_for
from nex_merge.engines.transformers import FamilyEngine
from nex_merge.measures.estimates import objective_of
from nex_merge.records import MergeRecipe
from nex_merge.runs import custody, files
from nex_merge.setup.resolve import ResolvedConfig, resolve_config
from nex_merge.study.proposal import passthrough
from nex_merge.study.terms import Terms
from nex_merge.study.trial import TrialRunner, Tried
from nex_merge.workers.job import done_here

CONFIG = "configs/qwen3_ties.yaml"


def open_runner(resolved: ResolvedConfig) -> tuple[TrialRunner, Any]:
    """What plans and keeps the trials of a search, in a run folder of its own, and what does them."""
    with custody.hold(resolved, True, lambda text: None) as run:
        engine: Any = engine_for(resolved.family, resolved.config.runtime)
        engine.resident.keep_ranks(resolved.run / files.ORDERS)
        config = resolved.config
        ids = engine.encode(resolved.prompts, config.prompts, config.generation.max_new_tokens)
        terms = Terms(config, list(resolved.family.folders), ids, range(len(ids)), objective_of(config.study), ())
        return TrialRunner(terms, run), engine


def three_of(plan: ResolvedConfig) -> dict[str, Path]:
    """Folders of the base and of two models, under the names that `recipe` knows."""
    folders = plan.family.folders
    return {name: folders[of] for name, of in zip("ab", plan.family.models, strict=True)} | {"base": folders["base"]}


def whole_trial(root: Path, runs: int, prompts: int = 64) -> Comparison:
    """qwen3-tiny, ties: merge, answer, capture, score; a trial of a search, whose base and parents are answered for."""
    run = root / "trial"
    shutil.rmtree(run, ignore_errors=True)
    plan = resolve_config(CONFIG, {"output": str(run), "prompts": {"limit": prompts}})
    config, folders = plan.config, plan.family.folders
    runner, engine = open_runner(plan)
    named = three_of(plan)
    found = Comparison(f"a whole trial, qwen3-tiny, {prompts} prompts", "by hand: mergekit-yaml, transformers, hooks",
                       [], [], "8x")  # fmt: skip

    def answer(name: str, recipe: MergeRecipe) -> Tried:
        return done_here(runner.work(name, name, recipe), engine)

    def theirs(number: int) -> float:
        spent, nex = by_hand(recipe("ties", named, number), runner.terms.prompt_ids, config, engine, root / "merged")
        theirs_by_stage.append(spent)
        return nex

    def ours(number: int) -> float:
        name = f"{number:04d}"
        result = runner.finish(answer(name, recipe("ties", named, number)), None)
        stages.append(dict(result.seconds))
        return result.value("nex") or 0.0

    stages: list[dict[str, float]] = []
    theirs_by_stage: list[dict[str, float]] = []
    # As in every search, base and parents come first: merges are drafted from what they say.
    for name, folder in folders.items():
        answer(name, passthrough("base" if name == "base" else "parent", name, folder, "bfloat16"))
    ours(0)
    stages.clear()
    scores = []
    for number in range(1, runs + 1):
        seconds, nex = timed(lambda number=number: theirs(number))
        found.baseline.append(seconds)
        with PeakMemory() as peak:
            seconds, own = timed(lambda number=number: ours(number))
        found.ours.append(seconds)
        scores.append((nex, own))
        found.notes["peak_resident_bytes"] = max(peak.resident, found.notes.get("peak_resident_bytes", 0))
    found.notes |= {
        "scores_by_hand_and_ours": scores,
        "stages_by_hand_seconds": {stage: median(of[stage] for of in theirs_by_stage) for stage in theirs_by_stage[0]},
        "stages_seconds": {stage: median(of[stage] for of in stages) for stage in stages[0]},
        "peak_of_the_baselines_processes_bytes": children_peak(),
    }
    shutil.rmtree(run, ignore_errors=True)
    return found


def prepared(root: Path, runs: int) -> Iterator[Comparison]:
    """Three trials in turn, each answering prompts, with the next merge prepared meanwhile and without."""
    (root / "few.jsonl").write_text("\n".join(f'{{"prompt": "{n} + {n}"}}' for n in range(8)), encoding="utf-8")
    for method in ("dare_ties", "ties"):
        yield _prepared(root, method, 48, runs)
        shutil.rmtree(root / "orders", ignore_errors=True)


def _prepared(root: Path, method: str, tokens: int, runs: int) -> Comparison:
    folders = make_family("seventh", root)
    plan = resolve_config(
        {
            "family": {"base": str(folders["base"]), "models": {name: str(folders[name]) for name in ("a", "b")}},
            "search_space": "ties",
            "prompts": {"file": str(root / "few.jsonl")},
            "generation": {"max_new_tokens": tokens},
            "output": str(root / "prepared"),
        }
    )
    engine = FamilyEngine(plan.family, plan.config.runtime)
    engine.resident.keep_ranks(root / "orders")
    ids = engine.encode(plan.prompts, plan.config.prompts, tokens)

    def in_turn(ahead: bool) -> None:
        for number in range(3):
            following = recipe(method, folders, number + 1)
            if ahead:
                engine.resident._merger.prepare(following)  # which the engine does for accelerators alone
            engine.answer(ids, plan.config.generation)
            engine.load(following)

    engine.load(recipe(method, folders, 0))
    what = f"three trials whose next merge is prepared, {method}, seventh"
    against = "merged when its turn comes"
    return alternating(what, against, lambda: in_turn(False), lambda: in_turn(True), "-", runs)


def many_trials(root: Path, count: int = 200) -> dict[str, Any]:
    """Short trials one after the other in this process: memory and time at the 20th and at the last."""
    run = root / "many"
    shutil.rmtree(run, ignore_errors=True)
    short = {"prompts": {"limit": 4}, "generation": {"max_new_tokens": 32}}
    plan = resolve_config(CONFIG, {"output": str(run), **short})
    runner, engine = open_runner(plan)
    named = three_of(plan)
    seconds, memory = [], []
    for number in range(count):
        method = ("ties", "dare_ties", "della", "breadcrumbs", "task_arithmetic", "linear", "slerp")[number % 7]
        name = f"{number:04d}"
        made = recipe(method, named, number)
        took, _ = timed(
            lambda made=made, name=name: runner.finish(done_here(runner.work(name, name, made), engine), None)
        )
        seconds.append(took)
        memory.append(psutil.Process().memory_info().rss)
    shutil.rmtree(run, ignore_errors=True)
    return {
        "what": f"{count} trials in one process", "memory_at_20_bytes": memory[19], "memory_at_end_bytes": memory[-1],
        "memory_grown": memory[-1] / memory[19] - 1, "seconds_of_trials_10_to_30": median(seconds[10:30]),
        "seconds_of_the_last_20": median(seconds[-20:]), "goal": "memory at most 5 % more, time flat",
    }  # fmt: skip


def starting(root: Path, runs: int) -> Iterator[Comparison]:
    """How much longer a command takes than Python doing nothing."""
    run = root / "started"
    shutil.rmtree(run, ignore_errors=True)
    program = [sys.executable, "-m", "nex_merge"]
    quick = ["--trials", "2", "--set", "prompts.limit=2", "--set", "generation.max_new_tokens=16"]
    subprocess.run([*program, "search", CONFIG, *quick, "--set", f"output={run}"], check=True, capture_output=True)
    for what, arguments in (("--help", ["--help"]), ("leaderboard", ["leaderboard", str(run)])):
        found = Comparison(f"nex-merge {what}", "python -c pass", [], [], "at most 0.4 s more")
        for _ in range(runs):
            for command, seconds in (
                ([sys.executable, "-c", "pass"], found.baseline),
                ([*program, *arguments], found.ours),
            ):
                seconds.append(
                    timed(lambda command=command: subprocess.run(command, check=True, capture_output=True))[0]
                )
        found.notes = {"more_seconds": median(found.ours) - median(found.baseline)}
        yield found
    shutil.rmtree(run, ignore_errors=True)
