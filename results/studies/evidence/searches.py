"""Whole searches: the accuracy of the pick against the tokens that the search generated, by arm and seed.

Run folders and answers lie in results/study_data/searches; what is done is not done again.
"""

import csv
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, NSGAIISampler
from ranking.families import FAMILIES, LATER
from ranking.measure import opened

import nex_merge
from evidence.groups import CoarseToFine, by_activations, by_norm
from evidence.labelled import Rival
from nex_merge.generation import generate
from nex_merge.records import MergeRecipe, Prompt, Response, TrialResult
from nex_merge.runs.leaderboard import best_merge
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import GenerationConfig, PromptsConfig
from nex_merge.setup.rendering import encode_prompts

HERE = Path(__file__).parents[1]
DATA = HERE.parent / "study_data" / "searches"
SEEDS, MAX_TOKENS = (0, 1, 2), 640
PER_KIND = 512  # problems of each kind for the accuracy of a pick: 1,024 in all
LAMBDAS = {"low": 0.0, "high": 1.2}
TIES = {"weight": {"low": 0.0, "high": 1.2}, "density": {"low": 0.2, "high": 1.0, "step": 0.05}, "lambda": 1.0}
LAYERS = 4
POPULATION = 8  # of NSGA-II: five generations in 40 trials
ARMS: dict[str, dict[str, Any]] = {
    "raced": {"study": {"objective": "consensus", "pruner": "wilcoxon"}, "activations": {"capture": "none"}},
    "unraced": {"study": {"objective": "consensus"}, "activations": {"capture": "none"}},
    "random": {"study": {"objective": "consensus", "sampler": "random"}, "activations": {"capture": "none"}},
    "nex": {"study": {"objective": "nex"}, "activations": {"slice_tokens": 5, "top_k": 64}},
    "nsga2": {"study": {"objective": "consensus"}, "activations": {"capture": "none"}},
    # One factor for the sum of the task vectors, evenly spaced: the grid that one would try by hand.
    "lambda": {
        "study": {"objective": "consensus", "sampler": "qmc"},
        "activations": {"capture": "none"},
        "search_space": {"methods": ["task_arithmetic"], "parameters": {"weight": 1.0, "lambda": LAMBDAS}},
    },
    # Every layer with parameters of its own: all at once, or freed one after the other.
    **{
        arm: {
            "study": {"objective": "consensus"},
            "activations": {"capture": "none"},
            "search_space": {"methods": ["ties"], "parameters": TIES, "layer_groups": LAYERS},
        }
        for arm in ("groups_flat", "groups_norm", "groups_activations")
    },
}
LABELLED = "labelled"


def search(family: str, arm: str, seed: int, trials: int) -> Path:
    """The run folder of one search, finished."""
    folder = DATA / family / f"{arm}-{seed}"
    root, kinds = (FAMILIES | LATER)[family]
    problems = opened(family, 1).prompts
    DATA.mkdir(parents=True, exist_ok=True)
    prompts = DATA / f"{family}.jsonl"
    if not prompts.exists():
        prompts.write_text("".join(json.dumps({"prompt": p.prompt}) + "\n" for p in problems), encoding="utf-8")
    settings = {
        "family": {"base": f"{root}/base", "models": {kind: f"{root}/{kind}" for kind in kinds}},
        "search_space": "ties",
        "prompts": {"file": str(prompts)},
        "generation": {"max_new_tokens": MAX_TOKENS},
        "runtime": {"dtype": "float32"},
        "output": str(folder),
        **ARMS[arm],
    }
    settings["study"] = {**settings["study"], "trials": trials, "seed": seed}
    nex_merge.search(settings, sampler=_sampler(family, arm, seed))
    return folder


def _sampler(family: str, arm: str, seed: int) -> BaseSampler | None:
    """The arm's own sampler; None: the configured one."""
    if arm == "nsga2":
        return NSGAIISampler(population_size=POPULATION, seed=seed)
    if arm == "groups_norm":
        return CoarseToFine(by_norm(family, LAYERS), seed)
    if arm == "groups_activations":
        folders, merger, tokenizer, problems, _ = opened(family, 1)
        texts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in problems]
        ids = encode_prompts(texts, tokenizer, PromptsConfig(file=""))
        return CoarseToFine(by_activations(folders, merger, ids, LAYERS), seed)
    return None


class Grader:
    """Accuracy of a family's merges on problems that no search saw; base and experts' answers are the drafts."""

    def __init__(self, family: str) -> None:
        self._folders, self._merger, self._tokenizer, _, self._problems = opened(family, PER_KIND)
        texts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in self._problems]
        self._ids = encode_prompts(texts, self._tokenizer, PromptsConfig(file=""))
        self._family = family
        self._drafts: list[Response] = []

    def __call__(self, name: str, recipe: MergeRecipe) -> float:
        """The accuracy of a search's pick, kept under the search's name."""
        kept = DATA / self._family / f"{name}.accuracy.json"
        if not kept.exists():
            self._prepare()
            self._merger.load(recipe)
            right = [p.is_right(r.text) for p, r in zip(self._problems, self._answer(), strict=True)]
            kept.write_text(json.dumps(float(np.mean(right))), encoding="utf-8")
        return json.loads(kept.read_text(encoding="utf-8"))

    def _prepare(self) -> None:
        """The answers of base and experts, which are kept: each of them costs as much as several merges' do."""
        if self._drafts:
            return
        from nex_merge.study.proposal import passthrough

        for name, folder in self._folders.items():
            path = DATA / self._family / f"answers-{name}.jsonl"
            if not path.exists():
                self._merger.load(passthrough("base" if name == "base" else "parent", name, folder, "bfloat16"))
                lines = [json.dumps(asdict(response)) for response in self._answer()]
                partial = path.with_suffix(f".{os.getpid()}")
                partial.write_text("\n".join(lines), encoding="utf-8")
                partial.replace(path)
            for line in path.read_text(encoding="utf-8").splitlines():
                item = json.loads(line)
                ids = {key: tuple(item[key]) for key in ("prompt_ids", "token_ids")}
                self._drafts.append(Response(**{**item, **ids}))

    def _answer(self) -> list[Response]:
        settings = GenerationConfig(max_new_tokens=MAX_TOKENS, batch_tokens=200_000)
        return generate(self._merger.model, self._tokenizer, self._ids, settings, references=self._drafts)


def run_one(family: str, arm: str, seed: int, trials: int, grader: Grader, rival: Rival) -> None:
    """One search of so many trials, and the accuracy of its pick."""
    name = f"{arm}-{seed}"
    if arm == LABELLED:
        parameters, tokens = rival.search(seed, trials, DATA / family / f"{name}.json")
        accuracy = grader(name, rival.recipe(optuna.trial.FixedTrial(parameters)))
    else:
        run = RunFolder(search(family, arm, seed, trials))
        accuracy, tokens = grader(name, run.recipe(best_merge(run))), _tokens(run)
    print(f"{family} {name}: {accuracy:.3f}, {tokens:,} tokens", flush=True)


def measure(family: str, seeds: int, trials: int) -> None:
    """All arms, seed by seed, so that what is done of a study that is cut short can be compared."""
    grader, rival = Grader(family), Rival(family)
    for seed in SEEDS[:seeds]:
        for arm in (*ARMS, LABELLED):
            run_one(family, arm, seed, trials, grader, rival)
            write(family)


def _merges(run: RunFolder) -> list[TrialResult]:
    return [result for result in run.results() if result.kind == "merge"]


def _tokens(run: RunFolder) -> int:
    """Tokens that the merges generated; base and parents cost every arm the same."""
    merges = [result.trial for result in _merges(run) if result.same_as is None]
    return sum(len(response.token_ids) for trial in merges for response in run.responses(trial))


def write(family: str) -> None:
    """A row per finished search of a family, as CSV beside the study. Rows of searches that are not at hand stay."""
    columns = ("family", "arm", "seed", "trials", "trial", "accuracy", "problems", "tokens", "seconds", "pruned")
    file = HERE / f"search_efficiency_{family}.csv"
    known = list(csv.DictReader(file.open(encoding="utf-8"))) if file.exists() else []
    rows = {(row["arm"], row["seed"]): row for row in known}
    for kept in sorted((DATA / family).glob("*.accuracy.json")):
        name = kept.name.removesuffix(".accuracy.json")
        arm, _, seed = name.rpartition("-")
        if arm == LABELLED:
            trial, trials, seconds, pruned = "", "", "", 0
            tokens = json.loads((DATA / family / f"{name}.json").read_text(encoding="utf-8"))["tokens"]
        else:
            run = RunFolder(DATA / family / name)
            trial, tokens = best_merge(run).trial, _tokens(run)
            merges = _merges(run)
            trials, pruned = len(merges), sum(result.state == "pruned" for result in merges)
            seconds = f"{sum(sum(result.seconds.values()) for result in merges):.0f}"
        accuracy = json.loads(kept.read_text(encoding="utf-8"))
        row = [family, arm, seed, trials, trial, f"{accuracy:.4f}", 2 * PER_KIND, tokens, seconds, pruned]
        rows[arm, seed] = dict(zip(columns, row, strict=True))
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))
