"""NEX with many samples of every prompt: 12 sound merges of qwen3-tiny, 64 prompts, up to 64 samples each at 0.7.

Scored with 1, 4, 16 and all samples of a prompt, over four disjoint groups of as many where there are. Credit comes
from each variant's own responses (`self`) or from all variants' (`pool`); in two more ways, under `pool`, only from the
responses that consensus supports, and from these against the others.
"""

import csv
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ranking.families import MIN_RUN, RHO, SHIPPED, recipes
from ranking.measure import opened
from scipy.stats import spearmanr

from evidence.pools import rank_correlation
from evidence.toy import DATA, MAX_TOKENS
from nex_merge import conclude
from nex_merge.activations.capture import capture
from nex_merge.generation import generate
from nex_merge.measures.readings import readings
from nex_merge.measures.votes import Votes
from nex_merge.nex.calibration import analyse, stack_credits
from nex_merge.nex.credit import EPSILON
from nex_merge.records import Prompt, Response
from nex_merge.resampling import HALVINGS, halves, split_half
from nex_merge.setup.config import GenerationConfig, PromptsConfig
from nex_merge.setup.rendering import encode_prompts

HERE = Path(__file__).parents[1]
FAMILY, MERGES, BLOCK = "qwen3-tiny", 12, 16  # samples in a file
DRAFTS_FROM = 2  # the first variants' responses are drafts for the rest; they change no token
FOLDER = DATA / f"{FAMILY}-samples"
SIZES, GROUPS = (1, 4, 16), 4  # samples of a prompt beside all, and how many disjoint groups of so many are looked at
WAYS = ("self", "pool", "pool, supported", "pool, supported against others")


def chosen() -> list[str]:
    """12 merges, evenly spaced in the order of the earlier study's accuracy among the sound ones."""
    with open(HERE / "ranking_variants.csv", newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["family"] == FAMILY and r["kind"] == "merge"]
    sound = sorted((r for r in rows if r["collapsed"] == "False"), key=lambda r: float(r["accuracy"]))
    return [sound[i]["variant"] for i in np.linspace(0, len(sound) - 1, MERGES).round().astype(int)]


def spread(names: list[str]) -> list[str]:
    """The same in an order whose beginning spans the whole range, so that a measurement that is cut short does."""
    order = [0, 11, 6, 3, 9, 1, 4, 8, 10, 2, 5, 7]
    return [names[i] for i in order]


def _accuracy(blocks: int) -> dict[str, float]:
    """The accuracy, on other problems, of the merges that have been measured."""
    with open(HERE / f"evidence_{FAMILY}.csv", newline="", encoding="utf-8") as file:
        found = {r["variant"]: float(r["accuracy"]) for r in csv.DictReader(file)}
    done = [name for name in chosen() if all((FOLDER / f"{name}-{block}.npz").exists() for block in range(blocks))]
    return {name: found[name] for name in done}


def measure(blocks: Iterable[int], names: Sequence[str]) -> None:
    """Answer and capture what is not there yet: a .npz of 50 MB per variant and block of 16 samples."""
    folders, merger, tokenizer, problems, _ = opened(FAMILY, 1)
    texts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in problems]
    ids = encode_prompts(texts, tokenizer, PromptsConfig(file=""))
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = recipes(folders)
    for block in blocks:
        settings = GenerationConfig(
            max_new_tokens=MAX_TOKENS, batch_tokens=200_000, samples=BLOCK, temperature=0.7, seed=5 + block
        )
        drafts: list[Response] = []
        for name in names:
            path = FOLDER / f"{name}-{block}.npz"
            if path.exists():
                continue
            began = time.monotonic()
            merger.load(found[name])
            responses = generate(merger.model, tokenizer, ids, settings, references=drafts)
            drafts += responses if len(drafts) < DRAFTS_FROM * len(responses) else []
            answered = time.monotonic() - began
            cache, _ = capture(merger.model, responses, SHIPPED)
            analyses = analyse(cache, RHO, MIN_RUN)
            credits = stack_credits(analyses)
            keys = [None if r.truncated else conclude(r.text, "text") for r in responses]
            arrays = {
                "base_ptr": cache.base.ptr, "base_keys": cache.base.keys, "base_masses": cache.base.masses,
                "ptr": credits.ptr, "keys": credits.keys,
                "effective": credits.effective, "redundant": credits.redundant,
                "prompt": np.array([r.prompt for r in responses]), "sample": np.array([r.sample for r in responses]),
                "tokens": np.array([len(r.token_ids) for r in responses]),
                "right": np.array([problems[r.prompt].is_right(r.text) for r in responses]),
                "keys_json": np.array(json.dumps(keys)),
                "cycles": np.array([len(item.cycles) for item in analyses]),
            }  # fmt: skip
            with open(path.with_suffix(".partial"), "wb") as out:
                np.savez(out, **arrays)
            path.with_suffix(".partial").replace(path)
            print(
                f"{FAMILY} {name}, block {block}: {answered:.0f} s, {time.monotonic() - began:.0f} s in all", flush=True
            )


class Variant:
    """One variant's responses as dense arrays [R, N], by (prompt, sample)."""

    def __init__(self, name: str, blocks: int) -> None:
        found: list[dict[str, Any]] = []
        for block in range(blocks):
            with np.load(FOLDER / f"{name}-{block}.npz") as data:
                found.append({**data, "sample": data["sample"] + block * BLOCK})
        self.prompt, self.sample, self.tokens, self.right = (
            np.concatenate([part[key] for part in found]) for key in ("prompt", "sample", "tokens", "right")
        )
        self.conclusions = [key for part in found for key in json.loads(str(part["keys_json"]))]
        self._found = found

    def dense(self, neurons: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mass, effective and redundant credit of every response on `neurons`, float32 [R, N]."""
        dense = []
        for ptr, keys, values in (
            ("base_ptr", "base_keys", "base_masses"), ("ptr", "keys", "effective"), ("ptr", "keys", "redundant")
        ):  # fmt: skip
            block = np.zeros((len(self.prompt), len(neurons)), np.float32)
            start = 0
            for part in self._found:
                rows = start + np.repeat(np.arange(len(part[ptr]) - 1), np.diff(part[ptr]))
                at = np.minimum(np.searchsorted(neurons, part[keys]), len(neurons) - 1)
                known = neurons[at] == part[keys]
                block[rows[known], at[known]] = part[values][known]
                start += len(part[ptr]) - 1
            dense.append(block)
        return dense[0], dense[1], dense[2]

    @property
    def credited(self) -> np.ndarray:
        return np.unique(np.concatenate([part["keys"] for part in self._found]))


def _groups(size: int, samples: int) -> Iterator[np.ndarray]:
    for first in range(0, min(samples, GROUPS * size), size):
        yield np.arange(first, first + size)


def _weights(effective: np.ndarray, redundant: np.ndarray) -> np.ndarray:
    """w = tanh(log((E + 1e-6) / (R + 1e-6))), as in nex/good_mass.py; E and R float64 [H, N]."""
    a, b = np.square(effective + EPSILON), np.square(redundant + EPSILON)
    return (a - b) / (a + b)


def _score(mass: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Good-Mass Fraction of every response under each of the weights [H, N], float64 [R, H]; 0 without any weight."""
    good, weighted = mass @ np.maximum(w, 0).T.astype(np.float32), mass @ np.abs(w).T.astype(np.float32)
    return np.divide(good, weighted, out=np.zeros(good.shape), where=weighted > 0)


def tables(blocks: int) -> list[dict[str, Any]]:
    """A row per size, group of samples and way: Spearman with accuracy, and split-half reliability."""
    accuracy = _accuracy(blocks)
    variants = {name: Variant(name, blocks) for name in accuracy}
    neurons = np.unique(np.concatenate([v.credited for v in variants.values()]))
    draws = halves(np.arange(64), HALVINGS)  # [2 H, P]
    parts = np.concatenate([np.ones((1, 64), np.int64), draws])  # all prompts first
    samples = blocks * BLOCK
    sizes = [*(size for size in SIZES if size < samples), samples]
    settings = [(size, k, group) for size in sizes for k, group in enumerate(_groups(size, samples))]
    supported = {(s, k): _supported(variants, group) for s, k, group in settings}
    # Sums of credit by setting, kind of response, and prompt: float64 [P, N] would be large, so by part [H, N].
    shared: dict[tuple[int, int, str], np.ndarray] = {}
    own: dict[tuple[str, int, int], np.ndarray] = {}
    for name, variant in variants.items():
        _, effective, redundant = variant.dense(neurons)
        for size, k, group in settings:
            here = np.isin(variant.sample, group)
            backed = supported[size, k][name]
            for kind, rows in (("all", here), ("supported", here & backed), ("others", here & ~backed)):
                counted = parts[:, variant.prompt[rows]].astype(np.float32)  # [H, R]
                total = np.stack([counted @ credit[rows] for credit in (effective, redundant)])
                if kind == "all":
                    own[name, size, k] = total.astype(np.float32)
                shared[size, k, kind] = shared.get((size, k, kind), 0) + total
        print(f"credit of {name}", flush=True)
    scores = {(way, size, k): np.full((len(variants), len(parts)), np.nan) for way in WAYS for size, k, _ in settings}
    for v, (name, variant) in enumerate(variants.items()):
        mass = variant.dense(neurons)[0]
        for size, k, group in settings:
            here = np.isin(variant.sample, group)
            a, b = shared[size, k, "supported"], shared[size, k, "others"]
            for way, total in (
                ("self", own[name, size, k]), ("pool", shared[size, k, "all"]), ("pool, supported", a),
                ("pool, supported against others", np.stack([a[0] + b[1], a[1] + b[0]])),
            ):  # fmt: skip
                w = _weights(total[0].astype(np.float64), total[1].astype(np.float64))
                counted = parts[:, variant.prompt[here]].T  # [R, H]
                scores[way, size, k][v] = (_score(mass[here], w) * counted).sum(0) / counted.sum(0)
        print(f"scores of {name}", flush=True)
    return _rows(accuracy, variants, scores, settings)


def _supported(variants: dict[str, Variant], group: np.ndarray) -> dict[str, np.ndarray]:
    """Which of a variant's responses conclude what the pool concludes from the samples in `group`, bool [R]."""
    fit = readings(_votes(variants, group)).fit
    return {
        name: np.array([
            key is not None and fit.pooled.get(int(p)) == key for p, key in zip(v.prompt, v.conclusions, strict=True)
        ])
        for name, v in variants.items()
    }  # fmt: skip


def _votes(variants: dict[str, Variant], group: np.ndarray) -> Votes:
    conclusions = []
    for v in variants.values():
        asked: dict[int, list[str | None]] = {}
        for p, s, key in zip(v.prompt, v.sample, v.conclusions, strict=True):
            if s in group:
                asked.setdefault(int(p), []).append(key)
        conclusions.append(asked)
    return Votes(conclusions, 64)


def _rows(
    accuracy: dict[str, float],
    variants: dict[str, Variant],
    scores: dict[tuple[str, int, int], np.ndarray],
    settings: list[tuple[int, int, np.ndarray]],
) -> list[dict[str, Any]]:
    truth = np.array(list(accuracy.values()))
    rows = []
    for size in sorted({s for s, _, _ in settings}):
        for way in WAYS:
            found = [scores[way, s, k] for s, k, _ in settings if s == size]
            tokens = np.array([v.tokens.mean() for v in variants.values()])
            ranks = [rank_correlation(x[:, 0], truth) for x in found]
            rows.append({
                "merges": len(truth), "samples": size, "way": way, "groups": len(found), **_spread(ranks),
                "split_half": _mean([split_half(x[:, 1:]) for x in found]),
                "with_tokens": np.mean([spearmanr(x[:, 0], tokens)[0] for x in found]),
            })  # fmt: skip
        found = [readings(_votes(variants, g)).fit.reliability for s, _, g in settings if s == size]
        labels = [
            np.array([v.right[np.isin(v.sample, g)].mean() for v in variants.values()]) for s, _, g in settings
            if s == size
        ]  # fmt: skip
        for way, values in (("consensus", found), ("labels on the same responses", labels)):
            ranks = [rank_correlation(x, truth) for x in values]
            rows.append({
                "merges": len(truth), "samples": size, "way": way, "groups": len(values), **_spread(ranks),
                "split_half": None, "with_tokens": None,
            })  # fmt: skip
    return rows


def _spread(ranks: list[float | None]) -> dict[str, float | None]:
    """Mean and range over groups of samples of the Spearman correlation with accuracy."""
    defined = [rank for rank in ranks if rank is not None]
    return {
        "spearman": _mean(ranks), "spearman_low": min(defined, default=None),
        "spearman_high": max(defined, default=None),
    }  # fmt: skip


def _mean(values: list[float | None]) -> float | None:
    """The mean of the defined values; None without any: there are too few variants."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
