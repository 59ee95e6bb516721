"""NEX of a single model, or of an activation cache: `nex-merge score`, and the Python function behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from nex_merge.activations.cache import read_cache
from nex_merge.errors import InputError
from nex_merge.inert import json_text
from nex_merge.nex import scoring
from nex_merge.nex.calibration import analyse, calibrate, stack_credits
from nex_merge.records import Evidence, NeuronWeights, NexScore, ResponseAnalysis
from nex_merge.resampling import interval, resamples
from nex_merge.setup.config import PhasesConfig, parse
from nex_merge.setup.families import defaults_of
from nex_merge.terminal import echo
from nex_merge.wording import decimal


@dataclass(frozen=True)
class ModelScore:
    """The NEX of one model, with the neuron weights it was computed under."""

    score: NexScore
    weights: NeuronWeights
    low: float | None  # 95 % bootstrap interval of score.nex over prompts; None: undefined, or a single prompt
    high: float | None


def score(
    model: str | None = None,
    prompts: str | None = None,
    *,
    cache: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    rho: float = 0.95,
    min_run: int = 2,
    weights: NeuronWeights | None = None,
) -> ModelScore:
    """NEX of a checkpoint's answers to prompts, or of an activation cache.

    Give either `model` and `prompts`, or `cache`.

    model: a checkpoint folder or a Hugging Face hub id.
    prompts: a prompt file (JSONL, text, CSV or Parquet).
    cache: a folder written by a search, such as `RUN/trials/0007/cache`.
    settings: how the model answers and is captured, for example `{"generation": {"max_new_tokens": 256}}`; the defaults
        are those of the known family that the model belongs to.
    rho, min_run: probability of staying in a phase, and the shortest phase in rows.
    weights: neuron weights to score under; by default they are estimated from the responses themselves.

    Raises InputError if the input is invalid, TrialError if the model computes NaN or infinite logits.

    >>> result = score(cache="tests/golden/long")
    >>> round(result.score.nex, 4), result.score.responses, len(result.weights.keys)
    (0.8809, 3, 2417)
    """
    if (cache is None) == (model is None) or (model is None) != (prompts is None):
        raise InputError("score: expected either a cache, or a model and prompts")
    phases = parse(PhasesConfig, {"rho": rho, "min_run": min_run}, "score")
    if cache is None:
        assert model is not None and prompts is not None
        evidence, analyses = _observe(model, prompts, settings or {}, phases)
    else:
        if settings:
            raise InputError("score: settings apply to a model; a cache is scored as it was captured")
        rows = read_cache(Path(cache))
        analyses = analyse(rows, phases.rho, phases.min_run)
        # A cache does not record which prompt a response answers, so each response counts as a prompt of its own.
        evidence = Evidence(np.arange(rows.responses), rows.base, stack_credits(analyses))
    calibration = "self" if weights is None else "given"
    found = scoring.score(evidence, analyses, calibration, weights)
    low = high = None
    if found.nex is not None:
        drawn = scoring.resampled(evidence, found.response_scores, calibration, resamples(evidence.prompts))
        low, high = interval(drawn, len(np.unique(evidence.prompts)))
    return ModelScore(found, calibrate(evidence.credits) if weights is None else weights, low, high)


def _observe(
    model: str, prompts: str, settings: Mapping[str, Any], phases: PhasesConfig
) -> tuple[Evidence, Sequence[ResponseAnalysis]]:
    """What is observed of a checkpoint's responses to the prompts of a file."""
    from nex_merge.engines.observe import ObserveSettings
    from nex_merge.inspect.models import configure, respond
    from nex_merge.setup.prompts import load

    config = configure(defaults_of(model)[0], {"prompts": {"file": prompts}}, settings, source="settings (--set)")
    loaded = load(config.prompts)
    for line in loaded.notes:
        echo(line, err=True)
    # Slow to import, so that mistakes in the settings are reported first.
    from nex_merge.engines.quiet import quietly
    from nex_merge.engines.transformers import CheckpointEngine

    answers = ObserveSettings(config.generation, config.activations, phases)
    with quietly():
        observed = respond(CheckpointEngine(model, config.runtime), loaded.prompts, config.prompts, answers)
    assert observed.evidence is not None and observed.analyses is not None
    return observed.evidence, observed.analyses


def load_weights(path: Path) -> NeuronWeights:
    """Neuron weights from an .npz archive with `keys` and `weights`. Raises InputError if it is not valid."""
    if not path.is_file():
        raise InputError(f"--weights: no such file: {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = {"keys", "weights"} - set(archive.files)
            if missing:
                raise InputError(
                    f"--weights: expected the arrays keys and weights in {path}, got {', '.join(archive.files)}"
                )
            keys, weights = archive["keys"], archive["weights"]
    except (ValueError, OSError, BadZipFile, AttributeError):
        raise InputError(f"--weights: expected an .npz archive of plain arrays, got {path}") from None
    if keys.ndim != 1 or keys.shape != weights.shape or keys.dtype.kind not in "iu" or weights.dtype.kind != "f":
        raise InputError(
            f"--weights: expected integer keys and floating-point weights of one length in {path}, got "
            f"{keys.dtype} {keys.shape} and {weights.dtype} {weights.shape}"
        )
    order = np.argsort(keys, kind="stable")
    keys, weights = keys[order].astype(np.uint32), weights[order].astype(np.float32)
    if (np.diff(keys.astype(np.int64)) == 0).any():
        raise InputError(f"--weights: expected every neuron once in {path}, got duplicate keys")
    if not (np.abs(weights) <= 1).all():
        raise InputError(f"--weights: expected weights between -1 and 1 in {path}, got others")
    return NeuronWeights(keys, weights)


def save_weights(path: Path, weights: NeuronWeights, **more: np.ndarray) -> None:
    """Write neuron weights as an .npz archive with `keys` (uint32), `weights` (float32) and `more` arrays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:  # to a path, NumPy adds an ending of its own to .NPZ
        np.savez(file, keys=weights.keys, weights=weights.weights, **more)  # pyright: ignore[reportArgumentType]


def print_score(result: ModelScore, form: str) -> None:
    """The score on stdout, as a table or as JSON."""
    score = result.score
    if form == "json":
        names = ("nex", "log_gap", "responses", "scored", "cycles", "fallbacks", "response_scores")
        echo(json_text({name: getattr(score, name) for name in names}))
        return
    bounds = f" (95 % over prompts: {result.low:.6f} to {result.high:.6f})" if result.low is not None else ""
    echo(f"nex        {'undefined' if score.nex is None else f'{score.nex:.6f}'}{bounds}")
    echo(f"log gap    {decimal(score.log_gap, '.6f')}")
    echo(f"responses  {score.responses}, {score.scored} scored, {score.credited} with credit")
    echo(f"cycles     {score.cycles} ({score.cycles / max(score.responses, 1):.2f} per response)")
    echo(f"fallbacks  {', '.join(f'{name} {count}' for name, count in score.fallbacks.items()) or 'none'}")
