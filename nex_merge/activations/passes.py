"""A teacher-forced pass over some responses: their rows' highest scores, and statistics of their tokens.

The dense activations of a layer exist only until its hook returns: the hook merges the layer's highest scores into
every row's running top k. Responses are padded at the right, where no token of theirs looks.

Symbols: B responses of the pass, n generated tokens of all of them, U units of a layer, V vocabulary, S tokens per row,
T rows, k scores kept per row.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from nex_merge.records import Response, SparseGroups, TokenStats
from nex_merge.setup.config import ActivationsConfig

# Bits of a neuron's key that hold its unit; the layer is above them.
UNIT_BITS = 16
LARGEST_MASS = float(np.finfo(np.float16).max)


class Pass:
    """The pass of one response, or of a pack."""

    def __init__(
        self, model: PreTrainedModel, responses: Sequence[Response], configs: Sequence[ActivationsConfig]
    ) -> None:
        self._model, self._configs = model, configs
        whole = [[*response.prompt_ids, *response.token_ids] for response in responses]
        width = max(map(len, whole))
        self._ids = torch.tensor([ids + [0] * (width - len(ids)) for ids in whole], device=model.device)
        self._lengths = [len(response.token_ids) for response in responses]
        self._tokens = torch.tensor([i for response in responses for i in response.token_ids], device=model.device)
        # The positions that predict the generated tokens: of one response a slice, which copies nothing.
        begins = [len(response.prompt_ids) - 1 for response in responses]
        self._where: slice | torch.Tensor = slice(begins[0], width - 1)
        if len(responses) > 1:
            spans = zip(range(0, len(whole) * width, width), begins, self._lengths, strict=True)
            places = [np.arange(row + begin, row + begin + length) for row, begin, length in spans]
            self._where = torch.from_numpy(np.concatenate(places)).to(model.device)
        # Computed once per distinct token: most are emitted more than once.
        self._distinct, self._of_token = self._tokens.unique(return_inverse=True)
        unembed = model.get_output_embeddings()
        assert unembed is not None, "a causal language model has one"
        self._unembed = unembed
        # The top k for a smaller k is a prefix of that for a larger one.
        largest: dict[tuple[str, int], int] = {}
        for config in configs:
            kept = (config.score, config.slice_tokens)
            largest[kept] = max(largest.get(kept, 0), config.top_k)
        self._tops = {kept: _RowTopK(self._lengths, kept[1], k, model.device) for kept, k in largest.items()}

    @torch.inference_mode()
    def run(self, block: int) -> tuple[list[list[SparseGroups]], list[TokenStats], int]:
        """By response, rows under every configuration; by response, token statistics; the number of clipped masses.

        The hooks call `take` during the pass. `block`: of how many tokens of the vocabulary logits are held at once.
        """
        hidden = self._predicting(self._model.model(input_ids=self._ids, use_cache=False).last_hidden_state)
        found = [self._tops[config.score, config.slice_tokens].groups(config.top_k) for config in self._configs]
        rows = [[groups[i] for groups, _ in found] for i in range(len(self._lengths))]
        stats = _token_stats(self._unembed, hidden, self._tokens, block, self._lengths)
        return rows, stats, sum(clipped for _, clipped in found)

    def take(self, layer: int, projection: nn.Linear, inputs: torch.Tensor) -> None:
        """Score a layer's activations: the inputs of its down projection at all positions, float [B, positions, U]."""
        a = self._predicting(inputs).float()
        for score in sorted({score for score, _ in self._tops}):
            scores = self._scores(score, a, projection)
            for (wanted, _), top in self._tops.items():
                if wanted == score:
                    top.add(layer, scores)

    def _predicting(self, values: torch.Tensor) -> torch.Tensor:
        """Of values at all positions, [B, positions, ...], those where a generated token is predicted, [n, ...]."""
        return values.flatten(0, 1)[self._where]

    def _scores(self, score: str, a: torch.Tensor, projection: nn.Linear) -> torch.Tensor:
        """Score of every unit at every token, float32 [n, U], from its activations a, float32 [n, U].

        logit_contribution is a times the product of the emitted token's row of the unembedding, [V, hidden size], and
        the unit's column of the down projection. magnitude is |a|, activation is a.
        """
        if score == "logit_contribution":
            rows = self._unembed.weight[self._distinct].float()
            return (rows @ projection.weight.float())[self._of_token].mul_(a)
        return a.abs() if score == "magnitude" else a


def _token_stats(
    unembed: nn.Linear, hidden: torch.Tensor, tokens: torch.Tensor, width: int, lengths: Sequence[int]
) -> list[TokenStats]:
    """Statistics of the next-token distributions given `hidden`, float [n, hidden size], for the emitted tokens [n].

    One for each response, of which `lengths` says how many of the tokens are its.

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
    certainty = log_mass - total / vocabulary
    logprob = emitted - log_mass
    found = []
    for one, sure, said in zip(*(values.split(list(lengths)) for values in (entropy, certainty, logprob)), strict=True):
        found.append(torch.stack([one.mean(), one.std(correction=0), sure.mean(), said.mean()]))
    return [
        TokenStats(mean, spread, sure - math.log(vocabulary), said)
        for mean, spread, sure, said in torch.stack(found).tolist()
    ]


def _block_of(bias: torch.Tensor | None, block: slice) -> torch.Tensor | None:
    return None if bias is None else bias[block]


class _RowTopK:
    """The k highest positive scores of every row over all layers, and finally their sums by neuron."""

    def __init__(self, lengths: Sequence[int], slice_tokens: int, top_k: int, device: torch.device) -> None:
        """`lengths`: tokens of each response, whose last row may be shorter."""
        self._slice, self._k = slice_tokens, top_k
        self._by_response = [-(-length // slice_tokens) for length in lengths]
        self._rows = sum(self._by_response)
        # Where each token's scores go if every row has S of them.
        firsts = np.cumsum([0, *self._by_response[:-1]]) * slice_tokens
        places = np.concatenate([first + np.arange(length) for first, length in zip(firsts, lengths, strict=True)])
        self._places = torch.from_numpy(places).to(device)
        self._scores = torch.zeros(self._rows, 0, device=device)
        self._keys = torch.zeros(self._rows, 0, dtype=torch.int64, device=device)

    def add(self, layer: int, scores: torch.Tensor) -> None:
        """Merge in the scores of one layer, float32 [n, U]."""
        whole = scores
        if len(scores) < self._rows * self._slice:
            whole = scores.new_full((self._rows * self._slice, scores.shape[1]), -torch.inf)
            whole[self._places] = scores
        rows = whole.view(self._rows, -1)
        best = rows.topk(min(self._k, rows.shape[1]), dim=1)
        units = best.indices % scores.shape[1]
        merged = torch.cat([self._scores, best.values], 1)
        keys = torch.cat([self._keys, units + (layer << UNIT_BITS)], 1)
        kept = merged.topk(min(self._k, merged.shape[1]), dim=1)
        self._scores, self._keys = kept.values, keys.gather(1, kept.indices)

    def groups(self, k: int) -> tuple[list[SparseGroups], int]:
        """Of each response, sums by neuron of the k highest scores of its rows, k <= top_k; how many were clipped."""
        scores, keys = self._scores[:, :k].cpu(), self._keys[:, :k].cpu()
        found, clipped = [], 0
        for mine, names in zip(scores.split(self._by_response), keys.split(self._by_response), strict=True):
            row, column = torch.nonzero(mine > 0, as_tuple=True)
            masses = mine[row, column].numpy()
            groups, clipped_here = sum_by_key(row.numpy(), names[row, column].numpy(), masses, len(mine))
            found.append(groups)
            clipped += clipped_here
        return found, clipped


def sum_by_key(group: np.ndarray, keys: np.ndarray, masses: np.ndarray, groups: int) -> tuple[SparseGroups, int]:
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
