"""A whole search of 40 trials of qwen3-tiny against its recipes done by hand, one after the other."""

import shutil
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import trials
from benchmarks.by_hand import by_hand
from benchmarks.measured import timed
from nex_merge.records import MergeRecipe
from nex_merge.runs.leaderboard import best_merge
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.proposal import passthrough

TRIALS, EVERY = 40, 4  # every fourth recipe is done by hand
PROMPTS = "prompts.limit=64"
NO_CAPTURE = ("study.objective=consensus", "activations.capture=none")
TWO = ("runtime.workers=2", "study.parallel=4")
WAYS: dict[str, tuple[str, ...]] = {
    "captured, objective nex": (),
    "captured, objective nex, two workers": TWO,
    "not captured, objective consensus": NO_CAPTURE,
    "not captured, objective consensus, two workers": (*NO_CAPTURE, *TWO),
}


def whole_search(root: Path) -> dict[str, Any]:
    """Seconds of the command, start and baselines included, and of the same by hand, estimated from some recipes.

    By hand, base and parents are loaded and answer, and every merge costs the mean of those that were done.
    """
    seconds, picks = {}, {}
    recipes: list[MergeRecipe] = []
    tokens = 0
    for way, settings in WAYS.items():
        out = root / "search"
        shutil.rmtree(out, ignore_errors=True)
        changes = [part for item in (PROMPTS, f"output={out}", *settings) for part in ("--set", item)]
        command = [sys.executable, "-m", "nex_merge", "search", trials.CONFIG, "--trials", str(TRIALS), *changes]
        seconds[way], _ = timed(lambda command=command: subprocess.run(command, check=True, capture_output=True))
        run = RunFolder(out)
        picks[way] = best_merge(run).trial
        if way == "not captured, objective consensus":
            chosen = [result for result in run.results() if result.kind == "merge" and result.same_as is None]
            recipes = [run.recipe(result) for result in chosen][::EVERY]
            tokens = sum(len(r.token_ids) for result in chosen for r in run.responses(result.trial))
    plan = resolve_config(trials.CONFIG, {"output": str(root / "search-by-hand"), "prompts": {"limit": 64}})
    shutil.rmtree(root / "search-by-hand", ignore_errors=True)
    runner, engine = trials.open_runner(plan)

    def one(made: MergeRecipe) -> dict[str, float]:
        return by_hand(made, runner.terms.prompt_ids, plan.config, engine, root / "merged")[0]

    members = [
        one(passthrough("base" if name == "base" else "parent", name, folder, "bfloat16"))
        for name, folder in plan.family.folders.items()
    ]
    merges = [one(made) for made in recipes]
    hand = {
        what: sum(spent[stage] for spent in members for stage in stages if stage != "merge")
        + TRIALS * mean(sum(spent[stage] for stage in stages) for spent in merges)
        for what, stages in (
            ("captured", ("merge", "generate", "capture", "score")),
            ("not captured", ("merge", "generate")),
        )
    }
    shutil.rmtree(root / "search", ignore_errors=True)
    shutil.rmtree(root / "search-by-hand", ignore_errors=True)
    return {
        "what": f"a whole search, qwen3-tiny, {TRIALS} trials", "seconds": seconds, "picks": picks,
        "by_hand_seconds": hand, "recipes_by_hand": len(merges), "stages_by_hand_seconds": merges, "tokens": tokens,
        "ratios": {way: hand[way.split(",")[0]] / spent for way, spent in seconds.items()},
        "goal": "4.5x captured, 5x not",
    }  # fmt: skip
