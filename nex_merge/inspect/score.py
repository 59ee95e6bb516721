"""`nex-merge score`: NEX of a cache on disk, or of one model's answers. Composes generation, capture and nex."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from nex_merge.activations.cache import read_cache
from nex_merge.errors import InputError
from nex_merge.nex.calibration import analyse, calibrate, stack_credits
from nex_merge.nex.scoring import score
from nex_merge.records import Evidence, NeuronWeights, NexScore, SparseRows
from nex_merge.setup.config import (
    ActivationsConfig,
    GenerationConfig,
    PromptsConfig,
    RuntimeConfig,
    Strict,
    merge_mappings,
    parse,
)


class ScoreConfig(Strict):
    """What --set can change when a model is scored."""

    prompts: PromptsConfig
    generation: GenerationConfig = GenerationConfig()
    activations: ActivationsConfig = ActivationsConfig()
    runtime: RuntimeConfig = RuntimeConfig()


def score_cache(folder: Path, rho: float, min_run: int, weights: Path | None) -> tuple[NexScore, NeuronWeights]:
    """The score of a cache, self-calibrated or under given weights, and the weights used."""
    cache = read_cache(folder)
    # A cache does not say which prompt a response answers: each counts as one of its own.
    return _score(cache, np.arange(cache.responses), rho, min_run, weights)


def score_model(
    model: str, prompts: str, settings: Mapping[str, Any], rho: float, min_run: int, weights: Path | None
) -> tuple[NexScore, NeuronWeights]:
    """The score of a checkpoint's answers to the prompts in a file. Raises InputError for what is wrong with either."""
    config = parse(ScoreConfig, merge_mappings({"prompts": {"file": prompts}}, settings), "--set")

    from nex_merge.activations.capture import capture
    from nex_merge.engines.checkpoint import load_checkpoint
    from nex_merge.generation import generate
    from nex_merge.setup.prompts import encode_prompts, load_prompts
    from nex_merge.study.trial import check_context

    asked = load_prompts(config.prompts)
    _, loaded, tokenizer = load_checkpoint(model, config.runtime)
    ids = encode_prompts(asked, tokenizer, config.prompts)
    check_context(ids, config.generation.max_new_tokens, loaded.config)
    responses = generate(loaded, tokenizer, ids, config.generation)
    cache, _ = capture(loaded, responses, config.activations)
    return _score(cache, np.array([r.prompt for r in responses]), rho, min_run, weights)


def _score(
    cache: SparseRows, prompts: np.ndarray, rho: float, min_run: int, weights: Path | None
) -> tuple[NexScore, NeuronWeights]:
    analyses = analyse(cache, rho, min_run)
    credits = stack_credits(analyses)
    given = None if weights is None else load_weights(weights)
    found = score(Evidence(prompts, cache.base, credits), analyses, "self" if given is None else "given", given)
    return found, calibrate(credits) if given is None else given


def load_weights(path: Path) -> NeuronWeights:
    """Neuron weights from an .npz with `keys` and `weights`. Raises InputError where it isn't one."""
    if not path.is_file():
        raise InputError(f"--weights: no file {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = {"keys", "weights"} - set(archive.files)
            if missing:
                raise InputError(
                    f"--weights: {path} lacks {', '.join(sorted(missing))}; it has {', '.join(archive.files)}"
                )
            keys, weights = archive["keys"], archive["weights"]
    except (ValueError, OSError, BadZipFile, AttributeError):
        raise InputError(f"--weights: {path} is no .npz archive of plain arrays") from None
    if keys.ndim != 1 or keys.shape != weights.shape or keys.dtype.kind not in "iu" or weights.dtype.kind != "f":
        raise InputError(f"--weights: {path}: keys have to be integers and weights as many real numbers")
    order = np.argsort(keys, kind="stable")
    keys, weights = keys[order].astype(np.uint32), weights[order].astype(np.float32)
    if (np.diff(keys.astype(np.int64)) == 0).any() or not (np.abs(weights) <= 1).all():
        raise InputError(f"--weights: {path}: each neuron once, with a weight from -1 to 1, would do")
    return NeuronWeights(keys, weights)


def save_weights(path: Path, weights: NeuronWeights) -> None:
    """Write neuron weights as an .npz with `keys` (uint32) and `weights` (float32)."""
    if path.suffix != ".npz":
        raise InputError(f"--weights-out: found {path}; a name that ends in .npz would do")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, keys=weights.keys, weights=weights.weights)


def print_score(found: NexScore, form: str) -> None:
    """The score on stdout."""
    names = ("nex", "log_gap", "responses", "scored", "cycles", "fallbacks", "response_scores")
    item = dataclasses.asdict(found)
    if form == "json":
        print(json.dumps({name: item[name] for name in names}, indent=1))
        return
    interval = f" (95 % over prompts: {found.low:.6f} to {found.high:.6f})" if found.low is not None else ""
    print(f"nex        {'undefined' if found.nex is None else f'{found.nex:.6f}'}{interval}")
    print(f"log gap    {'-' if found.log_gap is None else f'{found.log_gap:.6f}'}")
    print(f"responses  {found.responses}, {found.scored} scored, {found.credited} earned credit")
    print(f"cycles     {found.cycles} ({found.cycles / max(found.responses, 1):.2f} a response)")
    print(f"fallbacks  {', '.join(f'{k} {v}' for k, v in found.fallbacks.items()) or 'none'}")
