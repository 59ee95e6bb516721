"""Model + Responses -> SparseRows: one teacher-forced pass per response with hooks on the MLPs' down projections.

Each response runs alone and unpadded, so that nothing depends on its neighbours. No more than one layer's dense
activations of one response exist at a time: each layer's best scores are merged into the row's running top k.

Symbols: n generated tokens, U units of a layer, S tokens per row, T rows, k kept scores per row.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from nex_merge.config import ActivationsConfig
from nex_merge.errors import InputError
from nex_merge.records import Response, SparseGroups, SparseRows, TokenStats, concatenate_groups

LOGIT_CHUNK = 256
LARGEST_MASS = float(np.finfo(np.float16).max)


def gated_mlps(model: PreTrainedModel) -> list[nn.Linear]:
    """The down projections of all layers, in order. Raises InputError where the model has no gated MLPs."""
    layers = getattr(getattr(model, "model", None), "layers", None)
    projections = [getattr(getattr(layer, "mlp", None), "down_proj", None) for layer in layers or []]
    if not projections or not all(isinstance(projection, nn.Linear) for projection in projections):
        raise InputError(
            f"{type(model).__name__} has no gated MLPs at model.layers[i].mlp.down_proj, whose units are scored; "
            "Qwen, Llama, Mistral and Gemma checkpoints have them"
        )
    return [projection for projection in projections if isinstance(projection, nn.Linear)]


def capture(
    model: PreTrainedModel,
    responses: Sequence[Response],
    config: ActivationsConfig,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[SparseRows, tuple[TokenStats, ...]]:
    """The activation cache of all responses, and each one's token statistics from the same pass."""
    (cache,), stats = capture_all(model, responses, [config], progress)
    return cache, stats


def capture_all(
    model: PreTrainedModel,
    responses: Sequence[Response],
    configs: Sequence[ActivationsConfig],
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[SparseRows], tuple[TokenStats, ...]]:
    """One cache per configuration, all from the same single pass, and each response's token statistics."""
    parts: list[list[SparseGroups]] = [[] for _ in configs]
    stats = []
    for done, response in enumerate(responses, 1):
        groups, token_stats = _capture_response(model, response, configs)
        for own, rows in zip(parts, groups, strict=True):
            own.append(rows)
        stats.append(token_stats)
        progress(done)
    lengths = [len(response.token_ids) for response in responses]
    caches = [build_rows(own, lengths, config.slice_tokens) for own, config in zip(parts, configs, strict=True)]
    return caches, tuple(stats)


@torch.inference_mode()
def _capture_response(
    model: PreTrainedModel, response: Response, configs: Sequence[ActivationsConfig]
) -> tuple[list[SparseGroups], TokenStats]:
    tokens = torch.tensor(response.token_ids, device=model.device)
    ids = torch.cat([torch.tensor(response.prompt_ids, device=model.device), tokens])[None]
    first = len(response.prompt_ids) - 1  # the position that predicts the first generated token
    unembed = model.get_output_embeddings()
    assert unembed is not None, "a causal language model has one"
    # A smaller top k is the head of a larger one.
    largest: dict[tuple[str, int], int] = {}
    for config in configs:
        kept = (config.score, config.slice_tokens)
        largest[kept] = max(largest.get(kept, 0), config.top_k)
    tops = {(score, width): _RowTopK(len(tokens), width, k, model.device) for (score, width), k in largest.items()}

    def hook(layer: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def keep(projection: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            assert isinstance(projection, nn.Linear)
            a = inputs[0][0, first : first + len(tokens)].float()
            for score in sorted({score for score, _ in tops}):
                scores = _scores(score, a, projection, unembed.weight, tokens)
                for (wanted, _), top in tops.items():
                    if wanted == score:
                        top.add(layer, scores)

        return keep

    with ExitStack() as stack:
        for layer, projection in enumerate(gated_mlps(model)):
            stack.enter_context(projection.register_forward_pre_hook(hook(layer)))
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[0, first : first + len(tokens)]
    groups = [tops[config.score, config.slice_tokens].groups(config.top_k) for config in configs]
    return groups, _token_stats(unembed, hidden, tokens)


def _scores(
    score: str, a: torch.Tensor, projection: nn.Linear, unembedding: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """What every unit scores at every token, float32 [n, U], from its activations a, float32 [n, U].

    `unembedding` is the unembedding matrix, [V, hidden size].
    """
    if score == "logit_contribution":
        return a * (unembedding[tokens].float() @ projection.weight.float())
    return a.abs() if score == "magnitude" else a


def _token_stats(unembed: nn.Module, hidden: torch.Tensor, tokens: torch.Tensor) -> TokenStats:
    """Statistics of the distributions that `hidden`, float [n, hidden size], gives for the emitted tokens [n]."""
    entropies, certainties, logprobs = [], [], []
    for start in range(0, len(tokens), LOGIT_CHUNK):
        part = slice(start, start + LOGIT_CHUNK)
        log_p = unembed(hidden[part]).float().log_softmax(-1)
        entropies.append(-(log_p.exp() * log_p).sum(-1))
        certainties.append(-log_p.mean(-1) - math.log(log_p.shape[-1]))
        logprobs.append(log_p.gather(1, tokens[part, None])[:, 0])
    entropy, certainty, logprob = (torch.cat(values).double() for values in (entropies, certainties, logprobs))
    return TokenStats(
        entropy=float(entropy.mean()),
        entropy_spread=float(entropy.std(correction=0)),
        self_certainty=float(certainty.mean()),
        logprob=float(logprob.mean()),
    )


class _RowTopK:
    """The k highest positive scores of every row over all layers, summed by neuron in the end."""

    def __init__(self, tokens: int, slice_tokens: int, top_k: int, device: torch.device) -> None:
        self._slice, self._k = slice_tokens, top_k
        self._rows = -(-tokens // slice_tokens)
        self._scores = torch.zeros(self._rows, 0, device=device)
        self._keys = torch.zeros(self._rows, 0, dtype=torch.int64, device=device)

    def add(self, layer: int, scores: torch.Tensor) -> None:
        """Take in one layer's scores, float32 [n, U]."""
        missing = self._rows * self._slice - len(scores)
        padded = nn.functional.pad(scores, (0, 0, 0, missing), value=-torch.inf).view(self._rows, -1)
        best = padded.topk(min(self._k, padded.shape[1]), dim=1)
        units = best.indices % scores.shape[1]
        merged = torch.cat([self._scores, best.values], 1)
        keys = torch.cat([self._keys, units + (layer << 16)], 1)
        kept = merged.topk(min(self._k, merged.shape[1]), dim=1)
        self._scores, self._keys = kept.values, keys.gather(1, kept.indices)

    def groups(self, k: int) -> SparseGroups:
        """The k highest of every row; k is at most the number kept."""
        scores, keys = self._scores[:, :k].cpu(), self._keys[:, :k].cpu()
        row, column = torch.nonzero(scores > 0, as_tuple=True)
        return _sum_by_key(row.numpy(), keys[row, column].numpy(), scores[row, column].numpy(), self._rows)


def _sum_by_key(group: np.ndarray, keys: np.ndarray, masses: np.ndarray, groups: int) -> SparseGroups:
    """Entries summed by (group, key). A mass beyond float16's largest value becomes that value."""
    combined = (group.astype(np.int64) << 32) | keys.astype(np.int64)
    unique, inverse = np.unique(combined, return_inverse=True)
    sums = np.bincount(inverse, masses.astype(np.float64), minlength=len(unique))
    counts = np.bincount(unique >> 32, minlength=groups)
    return SparseGroups(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        (unique & 0xFFFFFFFF).astype(np.uint32),
        np.minimum(sums, LARGEST_MASS).astype(np.float16),
    )


def build_rows(parts: Sequence[SparseGroups], tokens: Sequence[int], slice_tokens: int) -> SparseRows:
    """The cache of all responses from each one's rows and number of tokens."""
    rows_per_response = [len(part.ptr) - 1 for part in parts]
    lengths: list[int] = []
    base = []
    for part, count in zip(parts, tokens, strict=True):
        lengths += [min(slice_tokens, count - start) for start in range(0, count, slice_tokens)]
        base.append(_sum_by_key(np.zeros(len(part.keys), np.int64), part.keys, part.masses, 1))
    return SparseRows(
        np.concatenate([[0], np.cumsum(rows_per_response)]).astype(np.int64),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        concatenate_groups(parts),
        concatenate_groups(base),
    )
