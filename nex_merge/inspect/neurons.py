"""The neurons of a variant: effective (w > 0) or redundant (w < 0), their activity, and their overlap across variants.

Reads the run folder; loads no model. Symbols: n neurons with a weight, w in [-1, 1] their weights, E and R the
effective and redundant credit that w is computed from (arXiv 2602.05805), m the activation mass over all responses of
the variant, L layers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import hypergeom

from nex_merge.errors import InputError
from nex_merge.inspect.score import save_weights
from nex_merge.measures.measure import teachers
from nex_merge.nex.credit import sum_credit
from nex_merge.nex.good_mass import neuron_weights
from nex_merge.nex.novelty import clean_masses
from nex_merge.one_thread import on_one_thread
from nex_merge.records import RESERVED_LAYER, Credit, Credits, NeuronWeights, SparseGroups
from nex_merge.runs.files import trial_label, trial_name
from nex_merge.runs.leaderboard import shown_in
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import NexConfig


@dataclass(frozen=True)
class Neurons:
    """Neurons with a weight, in ascending order of keys."""

    keys: np.ndarray  # uint32 [n]: layer << 16 | unit
    weights: np.ndarray  # float32 [n], nonzero
    effective: np.ndarray  # float32 [n]: credit E
    redundant: np.ndarray  # float32 [n]: credit R
    masses: np.ndarray  # float64 [n]: activation mass; 0 if the neuron is inactive in the variant

    @property
    def layer(self) -> np.ndarray:
        return self.keys >> 16

    @property
    def unit(self) -> np.ndarray:
        return self.keys & 0xFFFF

    @property
    def is_effective(self) -> np.ndarray:
        return self.weights > 0

    def ranked(self, effective: bool) -> np.ndarray:
        """Positions of the effective (or redundant) neurons, in descending order of |w| m; ties in order of keys.

        |w| m is a neuron's contribution to the Good-Mass Fraction.
        """
        places = np.flatnonzero(self.is_effective == effective)
        return places[np.argsort(-np.abs(self.weights[places]) * self.masses[places], kind="stable")]


@dataclass(frozen=True)
class Neuron:
    """A neuron, and in how many variants it is effective or redundant."""

    layer: int
    unit: int
    weight: float
    effective_credit: float
    redundant_credit: float
    mass: float
    effective_in: int  # number of variants in which it is effective, each under its own credit
    redundant_in: int


@dataclass(frozen=True)
class Layer:
    """Summary of the neurons of one layer."""

    layer: int
    effective: int  # neurons with w > 0
    redundant: int
    effective_credit: float  # sum of E over both
    redundant_credit: float
    mass: float  # of all neurons of the layer, including those without a weight
    effective_mass: float
    redundant_mass: float


@dataclass(frozen=True)
class Overlap:
    """Overlap with the effective neurons of another trial, each under the credit of its own responses."""

    trial: str
    effective: int  # the other trial's effective neurons
    shared: int
    jaccard: float  # shared / union
    chance: float  # expected for random sets of the run's active neurons, with equal numbers per layer
    chance_low: float  # 95 % interval of that
    chance_high: float


@dataclass(frozen=True)
class TrialNeurons:
    """The neurons of one trial, compared with the other trials of its run."""

    trial: str
    scoring: NexConfig  # of the run's leaderboard
    teachers: tuple[str, ...]  # the trials whose credit the weights are computed from
    neurons: Neurons
    layers: tuple[Layer, ...]
    variants: tuple[str, ...]  # the captured trials of the run, including this one
    effective_in: np.ndarray  # int64 [n]: number of variants in which it is effective, each under its own credit
    redundant_in: np.ndarray  # int64 [n]
    overlaps: tuple[Overlap, ...]  # with the other trials, in descending order

    def top(self, effective: bool, count: int) -> list[Neuron]:
        """The first of the effective (or redundant) neurons as `Neurons.ranked` has them."""
        of, order = self.neurons, self.neurons.ranked(effective)[:count]
        columns = (of.layer, of.unit, of.weights, of.effective, of.redundant, of.masses)
        lists = [column[order].tolist() for column in (*columns, self.effective_in, self.redundant_in)]
        return [Neuron(*values) for values in zip(*lists, strict=True)]


def read_neurons(run: RunFolder, trial: str) -> TrialNeurons:
    """The neurons of a scored trial under the scoring of the run's leaderboard.

    Raises InputError if the trial has no responses, or none of its neurons has a weight.
    """
    run = shown_in(run, run.find(trial).trial)
    name = run.find_scored(trial).trial
    nex = run.scoring()
    variants = run.variants(nex)
    # Not every variant has to be captured (`activations.capture`).
    evidence = {v.trial: found for v in variants if (found := v.observation.evidence) is not None}
    credit = {source: total_credit(own.credits) for source, own in evidence.items()}
    masses = {source: total_masses(own.base) for source, own in evidence.items()}
    if nex.calibration in ("self", "crossfit"):
        sources = [name]
    else:
        sources = [variant.trial for variant in teachers([v for v in variants if v.trial in evidence], nex)]
    keys, mass = masses[name]
    neurons = weighted_neurons(sum_credit([credit[source] for source in sources]), keys, mass)
    if len(neurons.keys) == 0:
        raise InputError(
            f"{trial_name(name)}: no neuron has a weight, because no response of "
            f"{', '.join(map(trial_label, sources)) or 'any trial'} earned credit "
            f"(calibration {nex.calibration}). Credit requires two cycles in a response: generate longer "
            "responses or use shorter rows (activations.slice_tokens)"
        )
    weights = {source: neuron_weights(total) for source, total in credit.items()}
    effective = {source: found.keys[found.weights > 0] for source, found in weights.items()}
    redundant = {source: found.keys[found.weights < 0] for source, found in weights.items()}
    active = np.unique(np.concatenate([used for used, _ in masses.values()]))
    return TrialNeurons(
        trial=name,
        scoring=nex,
        teachers=tuple(sources),
        neurons=neurons,
        layers=by_layer(neurons, keys, mass),
        variants=tuple(evidence),
        effective_in=_count_memberships(neurons.keys, effective.values()),
        redundant_in=_count_memberships(neurons.keys, redundant.values()),
        overlaps=overlaps(name, effective, active),
    )


def total_credit(credits: Credits, responses: Iterable[int] | None = None) -> Credit:
    """The summed credit of a model's responses (None: all)."""
    return sum_credit([credits.of(i) for i in (range(credits.responses) if responses is None else responses)])


def total_masses(base: SparseGroups, responses: Iterable[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(keys uint32 [k] ascending, masses float64 [k] > 0) over responses (None: all), without the reserved layer."""
    groups = [base.group(i) for i in (range(len(base.ptr) - 1) if responses is None else responses)]
    keys = np.concatenate([np.zeros(0, np.uint32), *(own for own, _ in groups)])
    masses = clean_masses(np.concatenate([np.zeros(0, np.float32), *(own for _, own in groups)])).astype(np.float64)
    usable = (masses > 0) & ((keys >> 16) != RESERVED_LAYER)
    keys, at = np.unique(keys[usable], return_inverse=True)
    return keys, np.bincount(at, masses[usable], minlength=len(keys))


def weighted_neurons(credit: Credit, keys: np.ndarray, masses: np.ndarray) -> Neurons:
    """The neurons with a weight under this credit; `keys` and `masses` are those of `total_masses`."""
    weights = neuron_weights(credit)
    at = np.searchsorted(credit.keys, weights.keys)
    return Neurons(
        keys=weights.keys,
        weights=weights.weights,
        effective=credit.effective[at],
        redundant=credit.redundant[at],
        masses=lookup(weights.keys, keys, masses),
    )


def lookup(queries: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value of each query, float64 [n]; 0 if it is not among `keys`, which ascend."""
    if len(keys) == 0:
        return np.zeros(len(queries))
    at = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
    return np.where(keys[at] == queries, values[at], 0.0)


def by_layer(neurons: Neurons, keys: np.ndarray, masses: np.ndarray) -> tuple[Layer, ...]:
    """The layers in which any neuron has a weight or mass, in order."""
    total = np.bincount(keys >> 16, masses, minlength=RESERVED_LAYER)
    found = []
    for layer in np.union1d(neurons.layer, keys >> 16).tolist():
        here = neurons.layer == layer
        good, bad = here & neurons.is_effective, here & ~neurons.is_effective
        found.append(
            Layer(
                layer=int(layer),
                effective=int(good.sum()),
                redundant=int(bad.sum()),
                effective_credit=float(neurons.effective[here].sum(dtype=np.float64)),
                redundant_credit=float(neurons.redundant[here].sum(dtype=np.float64)),
                mass=float(total[layer]),
                effective_mass=float(neurons.masses[good].sum()),
                redundant_mass=float(neurons.masses[bad].sum()),
            )
        )
    return tuple(found)


def _count_memberships(keys: np.ndarray, sets: Iterable[np.ndarray]) -> np.ndarray:
    """The number of sets that contain each key, int64 [n]."""
    return np.stack([np.isin(keys, members) for members in sets]).sum(axis=0)


def overlaps(trial: str, sets: Mapping[str, np.ndarray], active: np.ndarray) -> tuple[Overlap, ...]:
    """Overlap of the other trials' sets with a trial's, in descending order; chance draws from the `active` keys."""
    totals = layer_sizes(active)
    sizes = layer_sizes(sets[trial])
    found = []
    for name, keys in sets.items():
        if name == trial:
            continue
        shared = len(np.intersect1d(sets[trial], keys))
        union = len(sets[trial]) + len(keys) - shared
        chance = chance_jaccard(sizes, layer_sizes(keys), totals)
        found.append(Overlap(name, len(keys), shared, shared / union if union else 0.0, *chance))
    return tuple(sorted(found, key=lambda item: -item.jaccard))


def layer_sizes(keys: np.ndarray) -> np.ndarray:
    """The number of keys in each layer, int64 [256]."""
    return np.bincount(keys >> 16, minlength=RESERVED_LAYER + 1)


@on_one_thread
def chance_jaccard(first: np.ndarray, second: np.ndarray, total: np.ndarray) -> tuple[float, float, float]:
    """Exact (mean, 2.5 % quantile, 97.5 % quantile) of the Jaccard overlap of two random sets.

    `first`, `second`, `total`: int [L], the neurons per layer in either set and overall. Intersections in different
    layers are independent and hypergeometric, so the distribution of their sum is a convolution.
    """
    pmf = np.ones(1)
    for a, b, n in zip(first.tolist(), second.tolist(), total.tolist(), strict=True):
        if a and b:
            pmf = np.convolve(pmf, hypergeom.pmf(np.arange(min(a, b) + 1), n, a, b))
    shared = np.arange(len(pmf))
    union = first.sum() + second.sum() - shared
    jaccard = shared / np.maximum(union, 1)
    low, high = jaccard[np.minimum(np.searchsorted(np.cumsum(pmf), (0.025, 0.975)), len(pmf) - 1)]
    return float(pmf @ jaccard), float(low), float(high)


def save_neurons(path: Path, neurons: Neurons) -> None:
    """Write the neurons as an .npz archive that `nex-merge score --weights` accepts."""
    save_weights(
        path, NeuronWeights(neurons.keys, neurons.weights), effective=neurons.effective, redundant=neurons.redundant,
        masses=neurons.masses, layer=neurons.layer, unit=neurons.unit,
    )  # fmt: skip
