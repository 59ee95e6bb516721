"""Model + Responses -> SparseRows: one teacher-forced pass per response, with hooks on the MLPs' down projections.

Each response runs alone and unpadded, so that its rows do not depend on other responses; on the CPU, one response per
core at a time. The dense activations of a layer exist only until its hook returns: the hook merges the layer's highest
scores into every row's running top k.

Symbols: n generated tokens, U units of a layer, V vocabulary, S tokens per row, T rows, k scores kept per row.
"""

import logging
import math
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from nex_merge import interrupts
from nex_merge.errors import InputError
from nex_merge.records import RESERVED_LAYER, Response, SparseGroups, SparseRows, TokenStats, concatenate_groups
from nex_merge.setup.config import ActivationsConfig
from nex_merge.threads import on_cores
from nex_merge.wording import counted

# Memory for the passes that run at the same time, in bytes, and layers' activations per pass at its peak (measured).
IN_FLIGHT_BYTES = 4 << 30
LAYERS_HELD = 10
# Bits of a neuron's key that hold its unit; the layer is above them.
UNIT_BITS = 16
LARGEST_MASS = float(np.finfo(np.float16).max)


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
    """One cache per configuration, and the token statistics of each response, all from a single pass per response.

    `progress` is called with the number of responses done. Raises InputError if the model has no gated MLPs or too
    many neurons. Masses beyond float16's range are clipped, with one warning.
    """
    running = threading.local()

    def hook(layer: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def keep(projection: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            assert isinstance(projection, nn.Linear)
            interrupts.check()
            running.capture.take(layer, projection, inputs[0][0])

        return keep

    at_once = threading.Semaphore(_at_once(model, responses))

    def captured(response: Response) -> tuple[list[SparseGroups], TokenStats, int]:
        with at_once:
            running.capture = _Capture(model, response, configs)
            return running.capture.run()

    parts: list[list[SparseGroups]] = [[] for _ in configs]  # rows per configuration and response
    stats = []
    clipped = 0
    with ExitStack() as stack:
        for layer, projection in enumerate(gated_mlps(model)):
            stack.enter_context(projection.register_forward_pre_hook(hook(layer)))
        each = on_cores(captured, responses) if _side_by_side(model) else (captured(response) for response in responses)
        stack.enter_context(closing(each))
        for done, (groups, token_stats, clipped_in_rows) in enumerate(each, 1):
            for rows_so_far, rows in zip(parts, groups, strict=True):
                rows_so_far.append(rows)
            stats.append(token_stats)
            clipped += clipped_in_rows
            progress(done)
    lengths = [len(response.token_ids) for response in responses]
    caches = []
    for rows, config in zip(parts, configs, strict=True):
        cache, clipped_in_base = build_rows(rows, lengths, config.slice_tokens)
        caches.append(cache)
        clipped += clipped_in_base
    if clipped:
        _warn_of_clipping(clipped, caches)
    return caches, tuple(stats)


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
    rotary = str(getattr(getattr(model.model, "rotary_emb", None), "rope_type", ""))
    return model.device.type == "cpu" and "dynamic" not in rotary and "longrope" not in rotary


def _at_once(model: PreTrainedModel, responses: Sequence[Response]) -> int:
    """Number of passes over the longest response that fit into IN_FLIGHT_BYTES; at least one."""
    units = max(projection.in_features for projection in gated_mlps(model))
    longest = max((len(response.prompt_ids) + len(response.token_ids) for response in responses), default=1)
    return max(1, IN_FLIGHT_BYTES // (LAYERS_HELD * longest * units * model.dtype.itemsize))


class _Capture:
    """The pass of one response."""

    def __init__(self, model: PreTrainedModel, response: Response, configs: Sequence[ActivationsConfig]) -> None:
        self._model, self._configs = model, configs
        self._tokens = torch.tensor(response.token_ids, device=model.device)
        self._ids = torch.cat([torch.tensor(response.prompt_ids, device=model.device), self._tokens])[None]
        # The positions that predict the generated tokens.
        self._where = slice(len(response.prompt_ids) - 1, self._ids.shape[1] - 1)
        unembed = model.get_output_embeddings()
        assert unembed is not None, "a causal language model has one"
        self._unembed = unembed
        # The top k for a smaller k is a prefix of that for a larger one.
        largest: dict[tuple[str, int], int] = {}
        for config in configs:
            kept = (config.score, config.slice_tokens)
            largest[kept] = max(largest.get(kept, 0), config.top_k)
        self._tops = {kept: _RowTopK(len(self._tokens), kept[1], k, model.device) for kept, k in largest.items()}

    @torch.inference_mode()
    def run(self) -> tuple[list[SparseGroups], TokenStats, int]:
        """Rows under every configuration, token statistics and the number of clipped masses.

        The hooks call `take` during the pass.
        """
        hidden = self._model.model(input_ids=self._ids, use_cache=False).last_hidden_state[0, self._where]
        rows = [self._tops[config.score, config.slice_tokens].groups(config.top_k) for config in self._configs]
        stats = _token_stats(self._unembed, hidden, self._tokens, gated_mlps(self._model)[0].in_features)
        return [groups for groups, _ in rows], stats, sum(clipped for _, clipped in rows)

    def take(self, layer: int, projection: nn.Linear, inputs: torch.Tensor) -> None:
        """Score a layer's activations: the inputs of its down projection at all positions, float [positions, U]."""
        a = inputs[self._where].float()
        for score in sorted({score for score, _ in self._tops}):
            scores = _scores(score, a, projection, self._unembed.weight, self._tokens)
            for (wanted, _), top in self._tops.items():
                if wanted == score:
                    top.add(layer, scores)


def _scores(
    score: str, a: torch.Tensor, projection: nn.Linear, unembedding: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Score of every unit at every token, float32 [n, U], from its activations a, float32 [n, U].

    logit_contribution is a times the product of the emitted token's row of `unembedding`, [V, hidden size], and the
    unit's column of the down projection. magnitude is |a|, activation is a.
    """
    if score == "logit_contribution":
        # Computed once per distinct token: most are emitted more than once.
        distinct, of_token = tokens.unique(return_inverse=True)
        return (unembedding[distinct].float() @ projection.weight.float())[of_token].mul_(a)
    return a.abs() if score == "magnitude" else a


def _token_stats(unembed: nn.Linear, hidden: torch.Tensor, tokens: torch.Tensor, width: int) -> TokenStats:
    """Statistics of the next-token distributions given `hidden`, float [n, hidden size], for the emitted tokens [n].

    Processes the vocabulary in blocks of `width` tokens with an online softmax (arXiv 1805.02867): the logits of a
    whole response would take many times the memory of its activations.
    """
    vocabulary = unembed.out_features
    peak = torch.full((len(tokens),), torch.finfo(torch.float32).min, device=hidden.device)
    # Sums over the vocabulary so far, of logits l: of exp(l - peak), of (l - peak) exp(l - peak), and of l.
    mass, moment, total, emitted = (
        torch.zeros(len(tokens), dtype=torch.float64, device=hidden.device) for _ in range(4)
    )
    for start in range(0, vocabulary, width):
        block = slice(start, start + width)
        logits = nn.functional.linear(hidden, unembed.weight[block], _block_of(unembed.bias, block)).float()
        total += logits.sum(-1)
        place = tokens - start
        here = (place >= 0) & (place < logits.shape[1])
        emitted[here] = logits[here, place[here]].double()
        higher = torch.maximum(peak, logits.amax(-1))
        shift, peak = (peak - higher).double(), higher
        logits -= peak[:, None]
        exponentials = logits.exp()
        moment = shift.exp() * (moment + shift * mass) + logits.mul_(exponentials).sum(-1)
        mass = shift.exp() * mass + exponentials.sum(-1)
    log_mass = mass.log() + peak
    entropy = mass.log() - moment / mass
    return TokenStats(
        entropy=float(entropy.mean()),
        entropy_spread=float(entropy.std(correction=0)),
        self_certainty=float((log_mass - total / vocabulary).mean()) - math.log(vocabulary),
        logprob=float((emitted - log_mass).mean()),
    )


def _block_of(bias: torch.Tensor | None, block: slice) -> torch.Tensor | None:
    return None if bias is None else bias[block]


class _RowTopK:
    """The k highest positive scores of every row over all layers, and finally their sums by neuron."""

    def __init__(self, tokens: int, slice_tokens: int, top_k: int, device: torch.device) -> None:
        self._slice, self._k = slice_tokens, top_k
        self._rows = -(-tokens // slice_tokens)
        self._scores = torch.zeros(self._rows, 0, device=device)
        self._keys = torch.zeros(self._rows, 0, dtype=torch.int64, device=device)

    def add(self, layer: int, scores: torch.Tensor) -> None:
        """Merge in the scores of one layer, float32 [n, U]."""
        missing = self._rows * self._slice - len(scores)
        padded = nn.functional.pad(scores, (0, 0, 0, missing), value=-torch.inf).view(self._rows, -1)
        best = padded.topk(min(self._k, padded.shape[1]), dim=1)
        units = best.indices % scores.shape[1]
        merged = torch.cat([self._scores, best.values], 1)
        keys = torch.cat([self._keys, units + (layer << UNIT_BITS)], 1)
        kept = merged.topk(min(self._k, merged.shape[1]), dim=1)
        self._scores, self._keys = kept.values, keys.gather(1, kept.indices)

    def groups(self, k: int) -> tuple[SparseGroups, int]:
        """Sums by neuron of the k highest scores of every row (k <= top_k), and the number of clipped masses."""
        scores, keys = self._scores[:, :k].cpu(), self._keys[:, :k].cpu()
        row, column = torch.nonzero(scores > 0, as_tuple=True)
        return _sum_by_key(row.numpy(), keys[row, column].numpy(), scores[row, column].numpy(), self._rows)


def _sum_by_key(group: np.ndarray, keys: np.ndarray, masses: np.ndarray, groups: int) -> tuple[SparseGroups, int]:
    """Entries summed by (group, key), and the number of sums that were clipped to float16's largest value."""
    combined = (group.astype(np.int64) << 32) | keys.astype(np.int64)
    unique, inverse = np.unique(combined, return_inverse=True)
    sums = np.bincount(inverse, masses.astype(np.float64), minlength=len(unique))
    counts = np.bincount(unique >> 32, minlength=groups)
    groups_of_sums = SparseGroups(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        (unique & 0xFFFFFFFF).astype(np.uint32),
        np.minimum(sums, LARGEST_MASS).astype(np.float16),
    )
    return groups_of_sums, int((sums > LARGEST_MASS).sum())


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
        sums, clipped_here = _sum_by_key(np.zeros(len(part.keys), np.int64), part.keys, part.masses, 1)
        base.append(sums)
        clipped += clipped_here
    cache = SparseRows(
        np.concatenate([[0], np.cumsum(rows_per_response)]).astype(np.int64),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        concatenate_groups(parts),
        concatenate_groups(base),
    )
    return cache, clipped
