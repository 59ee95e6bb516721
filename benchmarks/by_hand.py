"""A trial as one would do it without the product: mergekit-yaml, transformers, hooks."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks import plain
from benchmarks.measured import timed
from benchmarks.merging import by_command
from nex_merge.activations.capture import build_rows
from nex_merge.engines.transformers import FamilyEngine
from nex_merge.records import MergeRecipe, SparseGroups, SparseRows
from nex_merge.setup.config import RunConfig


def by_hand(
    made: MergeRecipe, ids: Sequence[Sequence[int]], config: RunConfig, engine: FamilyEngine, out: Path
) -> tuple[dict[str, float], float]:
    """Seconds by stage, and NEX, of a recipe that is merged to `out`, and of which the engine takes the device."""
    shutil.rmtree(out, ignore_errors=True)
    device, end = engine.resident.device, engine.resident.tokenizer.eos_token_id
    spent: dict[str, float] = {}
    spent["merge"], model = timed(lambda: by_command(made, out).to(device=device, dtype=engine.resident.dtype))
    width = max(map(len, ids))
    padded = torch.tensor([[0] * (width - len(own)) + list(own) for own in ids], device=device)
    mask = torch.tensor([[0] * (width - len(own)) + [1] * len(own) for own in ids], device=device)
    spent["generate"], generated = timed(
        lambda: model.generate(
            padded, attention_mask=mask, max_new_tokens=config.generation.max_new_tokens, do_sample=False,
            eos_token_id=end, pad_token_id=0,
        )
    )  # fmt: skip
    texts = []
    for own, answer in zip(ids, generated[:, width:].tolist(), strict=True):
        tokens = answer[: answer.index(end) + 1] if end in answer else answer
        texts.append((list(own), tokens))
    spent["capture"], cache = timed(lambda: dense_capture(model, texts, config.activations))
    spent["score"], nex = timed(lambda: plain.score(cache, config.nex.rho, config.nex.min_run))
    return spent, nex


@torch.no_grad()
def dense_capture(model: PreTrainedModel, texts: Sequence[tuple[list[int], list[int]]], config: Any) -> SparseRows:
    """As one would by hand: hooks that keep every dense activation, all of it scored, then cut."""
    parts = []
    unembedding = model.get_output_embeddings().weight  # pyright: ignore[reportOptionalMemberAccess]
    for prompt, tokens in texts:
        kept: list[torch.Tensor] = []

        def keep(module: object, inputs: tuple[torch.Tensor, ...], kept: list[torch.Tensor] = kept) -> None:
            kept.append(inputs[0][0])

        layers = model.model.layers
        handles = [layer.mlp.down_proj.register_forward_pre_hook(keep) for layer in layers]
        model(torch.tensor([prompt + tokens], device=model.device))
        for handle in handles:
            handle.remove()
        where = slice(len(prompt) - 1, len(prompt) - 1 + len(tokens))
        emitted = unembedding[torch.tensor(tokens, device=model.device)]
        scores = torch.stack([
            a[where] * (emitted @ layer.mlp.down_proj.weight) for a, layer in zip(kept, layers, strict=True)
        ]).float().cpu().numpy()  # fmt: skip
        keys, masses, ptr = [], [], [0]
        for start in range(0, len(tokens), config.slice_tokens):
            row = scores[:, start : start + config.slice_tokens].transpose(1, 0, 2).ravel()
            best = np.argsort(-row)[: config.top_k]
            best = best[row[best] > 0]
            place = best % (scores.shape[0] * scores.shape[2])
            layer, unit = place // scores.shape[2], place % scores.shape[2]
            unique, inverse = np.unique(layer << 16 | unit, return_inverse=True)
            keys.append(unique.astype(np.uint32))
            masses.append(np.bincount(inverse, row[best]).astype(np.float16))
            ptr.append(ptr[-1] + len(unique))
        parts.append(SparseGroups(np.array(ptr), np.concatenate(keys), np.concatenate(masses)))
    return build_rows(parts, [len(tokens) for _, tokens in texts], config.slice_tokens)[0]
