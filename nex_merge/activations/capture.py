"""Model + Responses -> SparseRows: teacher-forced passes with hooks on the MLPs' down projections.

On the CPU each response runs alone and unpadded, one per core at a time, so that its rows do not depend on other
responses. On accelerators, where a pass over one response leaves most of the device idle, responses of similar lengths
run as a pack: its rows are those of a response alone up to rounding, and the same whenever the same responses are read.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from nex_merge import interrupts
from nex_merge.activations.passes import LARGEST_MASS, UNIT_BITS, Pass, sum_by_key
from nex_merge.errors import InputError
from nex_merge.records import RESERVED_LAYER, Response, SparseGroups, SparseRows, TokenStats, concatenate_groups
from nex_merge.setup.config import ActivationsConfig
from nex_merge.threads import on_cores
from nex_merge.wording import counted

# Memory for the passes that run at the same time, in bytes, and layers' activations per pass at its peak (measured).
IN_FLIGHT_BYTES = 4 << 30
LAYERS_HELD = 10
# A pack's shortest response is at least this share of its longest, to which all are padded.
ALIKE = 0.75


def check_capacity(layers: int, units: int) -> None:
    """Raise InputError if neuron keys cannot number a model of so many layers, with at most `units` MLP units each.

    A key is layer << 16 | unit, and layer 255 is reserved: a unit beyond 65,535 would be mistaken for one of the next
    layer, and the reserved layer would be dropped.
    """
    if layers > RESERVED_LAYER or units > 1 << UNIT_BITS:
        raise InputError(
            f"model: expected at most {RESERVED_LAYER} layers of {1 << UNIT_BITS:,} MLP units, "
            f"got {counted(layers, 'layer')} of {units:,}; neuron keys have room for no more"
        )


def gated_mlps(model: PreTrainedModel) -> list[nn.Linear]:
    """The down projections of all layers, in order.

    Raises InputError if the model has no gated MLPs, or more neurons than keys can number.
    """
    layers = getattr(getattr(model, "model", None), "layers", None)
    projections = [getattr(getattr(layer, "mlp", None), "down_proj", None) for layer in layers or []]
    if not projections or not all(isinstance(projection, nn.Linear) for projection in projections):
        raise InputError(
            f"model: expected gated MLPs at model.layers[i].mlp.down_proj, got {type(model).__name__}, which has none; "
            "Qwen, Llama, Mistral and Gemma checkpoints have them"
        )
    down = [projection for projection in projections if isinstance(projection, nn.Linear)]
    check_capacity(len(down), max(projection.in_features for projection in down))
    return down


def capture(
    model: PreTrainedModel,
    responses: Sequence[Response],
    config: ActivationsConfig,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[SparseRows, tuple[TokenStats, ...]]:
    """The activation cache of all responses, and the token statistics of each; see `capture_all`."""
    (cache,), stats = capture_all(model, responses, [config], progress)
    return cache, stats


def capture_all(
    model: PreTrainedModel,
    responses: Sequence[Response],
    configs: Sequence[ActivationsConfig],
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[SparseRows], tuple[TokenStats, ...]]:
    """One cache per configuration, and the token statistics of each response, all from a single pass over it.

    `progress` is called with the number of responses done. Raises InputError if the model has no gated MLPs or too
    many neurons. Masses beyond float16's range are clipped, with one warning.
    """
    running = threading.local()

    def hook(layer: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def keep(projection: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            assert isinstance(projection, nn.Linear)
            interrupts.check()
            running.capture.take(layer, projection, inputs[0])

        return keep

    at_once = _at_once(model, responses)
    side_by_side = _side_by_side(model)
    waiting = threading.Semaphore(at_once)

    def captured(pack: Sequence[int]) -> tuple[Sequence[int], list[list[SparseGroups]], list[TokenStats], int]:
        with waiting:
            running.capture = Pass(model, [responses[i] for i in pack], configs)
            return pack, *running.capture.run(gated_mlps(model)[0].in_features)

    found: dict[int, list[SparseGroups]] = {}  # by response: rows per configuration
    stats: dict[int, TokenStats] = {}
    clipped = 0
    with ExitStack() as stack:
        for layer, projection in enumerate(gated_mlps(model)):
            stack.enter_context(projection.register_forward_pre_hook(hook(layer)))
        packs = [[i] for i in range(len(responses))] if _are_alone(model) else pack_all(responses, at_once)
        each = on_cores(captured, packs) if side_by_side else (captured(pack) for pack in packs)
        stack.enter_context(closing(each))
        for pack, groups, token_stats, clipped_in_rows in each:
            found |= dict(zip(pack, groups, strict=True))
            stats |= dict(zip(pack, token_stats, strict=True))
            clipped += clipped_in_rows
            progress(len(found))
    lengths = [len(response.token_ids) for response in responses]
    caches = []
    for number, config in enumerate(configs):
        rows = [found[i][number] for i in range(len(responses))]
        cache, clipped_in_base = build_rows(rows, lengths, config.slice_tokens)
        caches.append(cache)
        clipped += clipped_in_base
    if clipped:
        _warn_of_clipping(clipped, caches)
    return caches, tuple(stats[i] for i in range(len(responses)))


def _warn_of_clipping(clipped: int, caches: Sequence[SparseRows]) -> None:
    masses = sum(len(cache.rows.masses) + len(cache.base.masses) for cache in caches)
    logging.getLogger(__name__).warning(
        "%d of %d activation masses (%.2f%%) exceed float16's largest value, %d, and were clipped to it",
        clipped,
        masses,
        100 * clipped / masses,
        LARGEST_MASS,
    )


def _side_by_side(model: PreTrainedModel) -> bool:
    """Whether passes may run concurrently: on the CPU, unless they change the rotary frequencies by their length."""
    return model.device.type == "cpu" and not _depends_on_length(model)


def _are_alone(model: PreTrainedModel) -> bool:
    """Whether each response has a pass of its own."""
    return model.device.type == "cpu" or _depends_on_length(model)


def _depends_on_length(model: PreTrainedModel) -> bool:
    rotary = str(getattr(getattr(model.model, "rotary_emb", None), "rope_type", ""))
    return "dynamic" in rotary or "longrope" in rotary


def pack_all(responses: Sequence[Response], at_once: int) -> list[list[int]]:
    """Numbers of the responses in packs of at most `at_once`, longest first, those of a pack alike in length."""
    lengths = [len(response.prompt_ids) + len(response.token_ids) for response in responses]
    packs: list[list[int]] = []
    for i in sorted(range(len(responses)), key=lambda i: (-lengths[i], i)):
        if not packs or len(packs[-1]) >= at_once or lengths[i] < ALIKE * lengths[packs[-1][0]]:
            packs.append([])
        packs[-1].append(i)
    return packs


def _at_once(model: PreTrainedModel, responses: Sequence[Response]) -> int:
    """Number of passes over the longest response that fit into IN_FLIGHT_BYTES; at least one."""
    units = max(projection.in_features for projection in gated_mlps(model))
    longest = max((len(response.prompt_ids) + len(response.token_ids) for response in responses), default=1)
    return max(1, IN_FLIGHT_BYTES // (LAYERS_HELD * longest * units * model.dtype.itemsize))


def build_rows(parts: Sequence[SparseGroups], tokens: Sequence[int], slice_tokens: int) -> tuple[SparseRows, int]:
    """The cache of all responses, from the rows and the number of tokens of each.

    Also the number of masses of whole responses that were clipped.
    """
    rows_per_response = [len(part.ptr) - 1 for part in parts]
    lengths: list[int] = []
    base = []
    clipped = 0
    for part, count in zip(parts, tokens, strict=True):
        lengths += [min(slice_tokens, count - start) for start in range(0, count, slice_tokens)]
        sums, clipped_here = sum_by_key(np.zeros(len(part.keys), np.int64), part.keys, part.masses, 1)
        base.append(sums)
        clipped += clipped_here
    cache = SparseRows(
        np.concatenate([[0], np.cumsum(rows_per_response)]).astype(np.int64),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        concatenate_groups(parts),
        concatenate_groups(base),
    )
    return cache, clipped
