"""MergeRecipe -> TrialResult: one trial, as numbered steps. Composes merging, generation, capture, cache and nex."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from nex_merge.activations.cache import write_cache, write_credits
from nex_merge.activations.capture import capture, gated_mlps
from nex_merge.errors import InputError, RunError, TrialError
from nex_merge.generation import generate
from nex_merge.measures.text import collapse, measure_text
from nex_merge.merging import Merger, preflight, weights_dtype
from nex_merge.nex.calibration import analyse, stack_credits
from nex_merge.nex.scoring import score
from nex_merge.records import (
    Credits,
    Evidence,
    MergeRecipe,
    NeuronWeights,
    Response,
    ResponseAnalysis,
    Rivals,
    SparseRows,
    TextMeasures,
    TokenStats,
    TrialResult,
)
from nex_merge.runs import files
from nex_merge.setup.config import RunConfig
from nex_merge.setup.families import Family
from nex_merge.setup.prompts import encode_prompts, load_prompts

# Told the stage that begins, or with a number how far it is.
Report = Callable[[str, int], None]


@dataclass(frozen=True)
class Measured:
    """A variant's responses and activations, before weights are known."""

    trial: str
    name: str
    recipe: MergeRecipe
    responses: Sequence[Response]
    cache: SparseRows
    stats: Sequence[TokenStats]
    analyses: Sequence[ResponseAnalysis]
    credits: Credits
    weights_sha256: str
    seconds: Mapping[str, float]


class Evaluator:
    """What all trials of a run share: the resident model, the tokenizer and the encoded prompts.

    Raises InputError on construction for whatever is wrong with the family, the device or the prompts.
    """

    def __init__(self, config: RunConfig, family: Family, run: Path, report: Report = lambda stage, done: None) -> None:
        self._config, self._run, self._report = config, run, report
        self._members = list(family.folders)
        self.out_dtype = weights_dtype(preflight(family.folders, family.donor))
        self.tokenizer = load_tokenizer(family.folders[family.donor])
        self.prompt_ids = encode_prompts(load_prompts(config.prompts), self.tokenizer, config.prompts)
        device = resolve_device(config.runtime.device)
        self.merger = Merger(family.folders, family.donor, device, self._dtype(device), run / files.ORDERS)
        gated_mlps(self.merger.model)
        check_prompts(config, self.prompt_ids)
        check_context(self.prompt_ids, config.generation.max_new_tokens, self.merger.model.config)

    def _dtype(self, device: str) -> torch.dtype:
        # The CPU computes in float32: exact for bfloat16 weights, and what makes results independent of batches.
        chosen = self._config.runtime.dtype
        return getattr(torch, ("float32" if device == "cpu" else self.out_dtype) if chosen == "auto" else chosen)

    def measure(self, trial: str, name: str, recipe: MergeRecipe) -> Measured:
        """Steps 1 to 5 of a trial.

        Raises TrialError where the variant can't be merged or run, RunError where the machine fails.
        """
        with _machine_faults(trial):
            return self._measure(trial, name, recipe)

    def _measure(self, trial: str, name: str, recipe: MergeRecipe) -> Measured:
        folder = files.trial_folder(self._run, trial)
        seconds: dict[str, float] = {}
        # 1. The recipe is on disk before anything can go wrong with it.
        files.write_recipe(folder, recipe)
        # 2. Merge into the resident model.
        with self._stage("merge", seconds):
            sha256 = self.merger.load(recipe)
        # 3. Answer the prompts.
        with self._stage("generate", seconds):
            done = _Counter(self._report, "generate")
            responses = generate(
                self.merger.model, self.tokenizer, self.prompt_ids, self._config.generation, done.add, self._said(trial)
            )
            files.write_responses(folder, responses)
        # 4. Keep the activations, sparsely.
        with self._stage("capture", seconds):
            cache, stats = capture(
                self.merger.model, responses, self._config.activations, lambda i: self._report("capture", i)
            )
            made_by = {"trial": trial, "weights_sha256": sha256, **self._config.activations.model_dump()}
            write_cache(folder / files.CACHE, cache, made_by)
        # 5. Find the phases, and what every response's neurons earned: additive, so that any calibration is a sum.
        with self._stage("score", seconds):
            nex = self._config.nex
            analyses = analyse(cache, nex.rho, nex.min_run)
            credits = stack_credits(analyses)
            write_credits(folder / files.CREDIT, credits, {"rho": nex.rho, "min_run": nex.min_run})
        return Measured(trial, name, recipe, responses, cache, stats, analyses, credits, sha256, seconds)

    def _said(self, trial: str) -> list[Response]:
        """The responses of base and parents, for these of those before: the same ones, however often a run stopped."""
        before = itertools.takewhile(lambda name: name != trial, self._members)
        folders = [files.trial_folder(self._run, name) for name in before]
        return [
            response
            for folder in folders
            if (folder / files.RESPONSES).exists()
            for response in files.read_responses(folder)
        ]

    def finish(
        self, measured: Measured, shared: NeuronWeights | None, parents: Sequence[TextMeasures] = ()
    ) -> TrialResult:
        """Step 6 of a trial: the score, under `shared` weights or (None) those of its own responses; result.json.

        A merge is held against `parents`, the text of base and parents; without them it is one of these itself. Raises
        TrialError where no response has activation mass to score.
        """
        began = time.perf_counter()
        responses, recipe = measured.responses, measured.recipe
        evidence = Evidence(np.array([r.prompt for r in responses]), measured.cache.base, measured.credits)
        scored = score(evidence, measured.analyses, self._config.nex.calibration, shared)
        if scored.nex is None:
            raise TrialError("no response has any activation mass, so there is nothing to score")
        text, rivals = measure_text(responses), self._rivals(measured)
        violation, reason = collapse(text, parents) if recipe.kind == "merge" else (None, None)
        budget = self._config.study.max_mean_tokens
        if violation is not None and budget is not None:
            excess = rivals.mean_tokens / budget - 1
            if excess > max(violation, 0):
                reason = f"{rivals.mean_tokens:.0f} tokens a response, study.max_mean_tokens is {budget:g}"
            violation = max(violation, excess)
        seconds = {**measured.seconds, "score": measured.seconds["score"] + time.perf_counter() - began}
        result = TrialResult(
            trial=measured.trial,
            kind=recipe.kind,
            name=measured.name,
            method=recipe.method,
            seed=recipe.seed,
            state="complete" if reason is None else "collapsed",
            reason=reason,
            parameters=recipe.parameters,
            score=scored,
            text=text,
            rivals=rivals,
            violation=violation,
            weights_sha256=measured.weights_sha256,
            seconds=seconds,
        )
        files.write_result(self._run, result)
        return result

    def _rivals(self, measured: Measured) -> Rivals:
        neurons = sum(projection.in_features for projection in gated_mlps(self.merger.model))
        novelties = [float(item.novelty.slopes.mean()) for item in measured.analyses if item.novelty is not None]
        stats = measured.stats
        return Rivals(
            mean_tokens=float(np.mean([len(r.token_ids) for r in measured.responses])),
            entropy=float(np.mean([s.entropy for s in stats])),
            entropy_spread=float(np.mean([s.entropy_spread for s in stats])),
            self_certainty=float(np.mean([s.self_certainty for s in stats])),
            perplexity=float(np.exp(min(-np.mean([s.logprob for s in stats]), 700.0))),
            utilization=float(np.diff(measured.cache.base.ptr).mean()) / neurons,
            novelty=float(np.mean(novelties)) if novelties else None,
        )

    @contextmanager
    def _stage(self, name: str, seconds: dict[str, float]) -> Iterator[None]:
        self._report(name, 0)
        began = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - began


@contextmanager
def _machine_faults(trial: str) -> Iterator[None]:
    """End the run where the device or the memory gives out: a failed trial would never be tried again."""
    try:
        yield
    except (torch.AcceleratorError, torch.OutOfMemoryError, MemoryError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(
            f"trial {trial}: the machine failed, not the recipe ({told}); the same command goes on with this trial"
        ) from error


class _Counter:
    """Adds up what is told to it and reports the sum."""

    def __init__(self, report: Report, stage: str) -> None:
        self._report, self._stage, self._total = report, stage, 0

    def add(self, count: int) -> None:
        self._total += count
        self._report(self._stage, self._total)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint. Raises InputError where it has none."""
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no tokenizer can be loaded ({str(error).splitlines()[0]})") from None


def resolve_device(wanted: str) -> str:
    """The torch device that `runtime.device` means. Raises InputError where it isn't there."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and int(wanted.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise InputError(
            f"runtime.device: found {wanted!r}, but this machine has {torch.cuda.device_count()} CUDA devices"
        )
    return wanted


def check_prompts(config: RunConfig, prompt_ids: Sequence[Sequence[int]]) -> None:
    """Refuse what a single prompt can't give."""
    if config.nex.calibration == "crossfit" and len(prompt_ids) < 2:
        raise InputError("nex.calibration: crossfit scores prompts by other prompts, found one; self would do")


def check_context(prompt_ids: Sequence[Sequence[int]], max_new_tokens: int, model_config: object) -> None:
    """Refuse prompts that leave the model no room for the longest response."""
    longest, room = max(map(len, prompt_ids)), getattr(model_config, "max_position_embeddings", None)
    if room is not None and longest + max_new_tokens > room:
        raise InputError(
            f"generation.max_new_tokens: found {max_new_tokens}; with the longest prompt of {longest} tokens that is "
            f"beyond the model's context of {room}; at most {max(room - longest, 0)} would do"
        )
