"""Whole searches: the accuracy of the pick against the tokens that the search generated, by arm and seed.

Run folders and answers lie in results/study_data/searches; what is done is not done again.
"""

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ranking.families import FAMILIES
from ranking.measure import opened

import nex_merge
from nex_merge.generation import generate
from nex_merge.records import Prompt, Response
from nex_merge.runs.run import Run
from nex_merge.setup.config import GenerationConfig, PromptsConfig
from nex_merge.setup.prompts import encode_prompts

HERE = Path(__file__).parents[1]
DATA = HERE.parent / "study_data" / "searches"
TRIALS, PROMPTS_PER_KIND, SEEDS, MAX_TOKENS = 40, 32, (0, 1, 2), 640
PER_KIND = 512  # problems of each kind for the accuracy of a pick: 1,024 in all
ARMS: dict[str, dict[str, Any]] = {
    "raced": {"study": {"objective": "consensus", "pruner": "wilcoxon"}, "activations": {"capture": "none"}},
    "unraced": {"study": {"objective": "consensus"}, "activations": {"capture": "none"}},
    "random": {"study": {"objective": "consensus", "sampler": "random"}, "activations": {"capture": "none"}},
    "nex": {"study": {"objective": "nex"}, "activations": {"slice_tokens": 5, "top_k": 64}},
}


def search(family: str, arm: str, seed: int) -> Path:
    """The run folder of one search, finished."""
    folder = DATA / family / f"{arm}-{seed}"
    root, kinds = FAMILIES[family]
    problems = opened(family, 1).prompts
    DATA.mkdir(parents=True, exist_ok=True)
    prompts = DATA / f"{family}.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": p.prompt}) + "\n" for p in problems), encoding="utf-8")
    settings = {
        "family": {"base": f"{root}/base", "models": {kind: f"{root}/{kind}" for kind in kinds}},
        "search_space": "ties",
        "prompts": {"file": str(prompts)},
        "generation": {"max_new_tokens": MAX_TOKENS},
        "output": str(folder),
        **ARMS[arm],
    }
    settings["study"] = {**settings["study"], "trials": TRIALS, "seed": seed}
    nex_merge.search(settings)
    return folder


class Grader:
    """Accuracy of a family's merges on problems that no search saw; base and experts' answers are the drafts."""

    def __init__(self, family: str) -> None:
        self._folders, self._merger, self._tokenizer, _, self._problems = opened(family, PER_KIND)
        texts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in self._problems]
        self._ids = encode_prompts(texts, self._tokenizer, PromptsConfig(file=""))
        self._kept = DATA / family / "graded.json"
        self._known: dict[str, float] = json.loads(self._kept.read_text()) if self._kept.exists() else {}
        self._family, self._drafts = family, []

    def __call__(self, run: Run, trial: str) -> float:
        result = run.find(trial)
        if result.weights_sha256 not in self._known:
            self._prepare()
            self._merger.load(run.recipe(result))
            self._keep(str(result.weights_sha256), self._answer())
        return self._known[str(result.weights_sha256)]

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
                path.write_text("\n".join(lines), encoding="utf-8")
            for line in path.read_text(encoding="utf-8").splitlines():
                item = json.loads(line)
                ids = {key: tuple(item[key]) for key in ("prompt_ids", "token_ids")}
                self._drafts.append(Response(**{**item, **ids}))

    def _answer(self) -> list[Response]:
        settings = GenerationConfig(max_new_tokens=MAX_TOKENS, batch_tokens=200_000)
        return generate(self._merger.model, self._tokenizer, self._ids, settings, references=self._drafts)

    def _keep(self, digest: str, responses: list[Response]) -> None:
        right = [p.is_right(r.text) for p, r in zip(self._problems, responses, strict=True)]
        self._known[digest] = float(np.mean(right))
        self._kept.write_text(json.dumps(self._known), encoding="utf-8")


def measure(family: str, seeds: int) -> None:
    """All arms, seed by seed, so that what is done of a study that is cut short can be compared."""
    grader = Grader(family)
    for seed in SEEDS[:seeds]:
        for arm in ARMS:
            run = Run(search(family, arm, seed))
            best = run.best()
            accuracy = grader(run, best.trial)
            print(
                f"{family} seed {seed} {arm}: trial {best.trial}, {accuracy:.3f}, {_tokens(run):,} tokens", flush=True
            )
            _write(family)


def _tokens(run: Run) -> int:
    """Tokens that the merges generated; base and parents cost every arm the same."""
    merges = [r.trial for r in run.results() if r.kind == "merge" and r.same_as is None]
    return sum(len(response.token_ids) for trial in merges for response in run.responses(trial))


def _write(family: str) -> None:
    known = json.loads((DATA / family / "graded.json").read_text())
    with open(HERE / f"search_efficiency_{family}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["family", "arm", "seed", "trial", "accuracy", "problems", "tokens", "seconds", "pruned"])
        for folder in sorted((DATA / family).glob("*-*/config.yaml")):
            run = Run(folder.parent)
            merges = [result for result in run.results() if result.kind == "merge"]
            if len(merges) < TRIALS or run.best().weights_sha256 not in known:
                continue
            arm, _, seed = folder.parent.name.rpartition("-")
            seconds = sum(sum(result.seconds.values()) for result in merges)
            pruned = sum(result.state == "pruned" for result in merges)
            best = run.best()
            accuracy = known[str(best.weights_sha256)]
            writer.writerow(
                [family, arm, seed, best.trial, f"{accuracy:.4f}", 2 * PER_KIND, _tokens(run), f"{seconds:.0f}", pruned]
            )
