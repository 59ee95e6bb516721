"""What a variant's neurons are: effective (w > 0) or redundant (w < 0), how active, and how far variants agree.

NumPy and the run folder; no model is touched. Symbols: n neurons with a weight, w in [-1, 1] their weights, E and R the
effective and redundant credit that w comes from (arXiv 2602.05805), m the activation mass over all of the variant's
responses, L layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import hypergeom

from nex_merge.activations.cache import read_base
from nex_merge.errors import InputError
from nex_merge.nex.credit import sum_credit
from nex_merge.nex.good_mass import neuron_weights
from nex_merge.nex.novelty import clean_masses
from nex_merge.records import RESERVED_LAYER, Credit, Credits, SparseGroups
from nex_merge.runs import files
from nex_merge.runs.rescore import credits_of, teachers
from nex_merge.setup.config import NexConfig, parse


@dataclass(frozen=True)
class Neurons:
    """Neurons with a weight, keys ascending."""

    keys: np.ndarray  # uint32 [n]: layer << 16 | unit
    weights: np.ndarray  # float32 [n], none of them 0
    effective: np.ndarray  # float32 [n]: credit E
    redundant: np.ndarray  # float32 [n]: credit R
    masses: np.ndarray  # float64 [n]: activation mass, 0 where the variant does not use the neuron

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
        """Positions of the effective (or the redundant) neurons, those that the score rests on most first.

        The order is that of |w| m, a neuron's part in the Good-Mass Fraction; equal ones by key.
        """
        own = np.flatnonzero(self.is_effective == effective)
        return own[np.argsort(-np.abs(self.weights[own]) * self.masses[own], kind="stable")]


@dataclass(frozen=True)
class Layer:
    """One layer's neurons in numbers."""

    layer: int
    effective: int  # neurons with w > 0
    redundant: int
    effective_credit: float  # sum of E over both
    redundant_credit: float
    mass: float  # of all its neurons, those without a weight included
    effective_mass: float
    redundant_mass: float


@dataclass(frozen=True)
class Overlap:
    """How far another trial's effective neurons are the same, each trial's under the credit of its own responses."""

    trial: str
    effective: int  # the other trial's effective neurons
    shared: int
    jaccard: float  # shared / in either
    chance: float  # expected of sets with as many neurons in every layer, drawn from those active in the run
    chance_low: float  # 95 % of such draws lie between these
    chance_high: float


@dataclass(frozen=True)
class TrialNeurons:
    """One trial's neurons among those of its run."""

    trial: str
    scoring: NexConfig  # the calibration, rho and min_run of the run's leaderboard
    teachers: tuple[str, ...]  # the trials whose credit the weights come from
    neurons: Neurons
    layers: tuple[Layer, ...]
    variants: tuple[str, ...]  # the run's scored trials, this one included
    effective_in: np.ndarray  # int64 [n]: in how many of them the neuron is effective, under their own credit
    redundant_in: np.ndarray  # int64 [n]
    overlaps: tuple[Overlap, ...]  # with the other trials, the closest first


def read_neurons(run: Path, trial: str) -> TrialNeurons:
    """A scored trial's neurons under the run's present scoring.

    Raises InputError where the trial has no responses, or no neuron has a weight.
    """
    results = files.read_results(run)
    chosen = files.find_scored(results, trial).trial
    scoring = parse(NexConfig, files.read_scoring(run) or files.read_settings(run)["nex"], str(run))
    scored = [result for result in results if result.state in files.SCORED]
    own = {result.trial: total_credit(credits_of(run, result.trial, scoring)) for result in scored}
    if scoring.calibration in ("self", "crossfit"):
        taught = [chosen]
    else:
        taught = [result.trial for result in teachers(run, scored, scoring)]
    credit = sum_credit([own[name] for name in taught])
    masses = {result.trial: total_masses(_base(run, result.trial)) for result in scored}
    neurons = weighted_neurons(credit, *masses[chosen])
    if len(neurons.keys) == 0:
        raise InputError(
            f"trial {chosen}: no neuron has a weight, as no response of {', '.join(taught)} earned credit "
            f"(calibration {scoring.calibration}); it takes two cycles, so longer responses or shorter rows would do"
        )
    signs = {name: neuron_weights(own_credit) for name, own_credit in own.items()}
    sets = {name: found.keys[found.weights > 0] for name, found in signs.items()}
    against = {name: found.keys[found.weights < 0] for name, found in signs.items()}
    active = np.unique(np.concatenate([keys for keys, _ in masses.values()]))
    return TrialNeurons(
        trial=chosen,
        scoring=scoring,
        teachers=tuple(taught),
        neurons=neurons,
        layers=by_layer(neurons, *masses[chosen]),
        variants=tuple(own),
        effective_in=counted(neurons.keys, list(sets.values())),
        redundant_in=counted(neurons.keys, list(against.values())),
        overlaps=overlaps(chosen, sets, active),
    )


def _base(run: Path, trial: str) -> SparseGroups:
    return read_base(files.trial_folder(run, trial) / files.CACHE)


def total_credit(credits: Credits) -> Credit:
    """The credit of all responses of a model."""
    return sum_credit([credits.of(i) for i in range(credits.responses)])


def total_masses(base: SparseGroups) -> tuple[np.ndarray, np.ndarray]:
    """(keys uint32 [k] ascending, masses float64 [k] > 0) over all responses; the reserved layer is left out."""
    masses = clean_masses(base.masses).astype(np.float64)
    usable = (masses > 0) & ((np.asarray(base.keys) >> 16) != RESERVED_LAYER)
    keys, at = np.unique(np.asarray(base.keys)[usable], return_inverse=True)
    return keys, np.bincount(at, masses[usable], minlength=len(keys))


def weighted_neurons(credit: Credit, keys: np.ndarray, masses: np.ndarray) -> Neurons:
    """The neurons that a credit gives a weight; `keys`, `masses`: the variant's activation, as total_masses has it."""
    weights = neuron_weights(credit)
    at = np.searchsorted(credit.keys, weights.keys)
    return Neurons(
        keys=weights.keys,
        weights=weights.weights,
        effective=credit.effective[at],
        redundant=credit.redundant[at],
        masses=looked_up(weights.keys, keys, masses),
    )


def looked_up(wanted: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value of each wanted key, float64 [n]; 0 where it is not among `keys`, ascending."""
    if len(keys) == 0:
        return np.zeros(len(wanted))
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0.0)


def by_layer(neurons: Neurons, keys: np.ndarray, masses: np.ndarray) -> tuple[Layer, ...]:
    """Every layer in which a neuron has a weight or mass, in order."""
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


def counted(keys: np.ndarray, sets: Sequence[np.ndarray]) -> np.ndarray:
    """In how many of the sets each key is, int64 [n]."""
    return np.stack([np.isin(keys, own) for own in sets]).sum(axis=0)


def overlaps(trial: str, sets: Mapping[str, np.ndarray], active: np.ndarray) -> tuple[Overlap, ...]:
    """How far the others' sets of neurons are a trial's, the closest first; `active`: the keys chance draws from."""
    sizes = layer_sizes(active)
    mine = layer_sizes(sets[trial])
    found = []
    for name, keys in sets.items():
        if name == trial:
            continue
        shared = len(np.intersect1d(sets[trial], keys))
        either = len(sets[trial]) + len(keys) - shared
        chance = chance_jaccard(mine, layer_sizes(keys), sizes)
        found.append(Overlap(name, len(keys), shared, shared / either if either else 0.0, *chance))
    return tuple(sorted(found, key=lambda item: -item.jaccard))


def layer_sizes(keys: np.ndarray) -> np.ndarray:
    """How many of the keys each layer has, int64 [256]."""
    return np.bincount(keys >> 16, minlength=RESERVED_LAYER + 1)


def chance_jaccard(first: np.ndarray, second: np.ndarray, total: np.ndarray) -> tuple[float, float, float]:
    """(mean, 2.5 %, 97.5 %) of the Jaccard overlap of two random sets, exactly.

    `first`, `second`, `total`: int [L], how many neurons of each layer the sets hold, out of how many. The sizes of the
    intersections are hypergeometric and independent, so that their sum's distribution is a convolution.
    """
    pmf = np.ones(1)
    for a, b, n in zip(first.tolist(), second.tolist(), total.tolist(), strict=True):
        if a and b:
            pmf = np.convolve(pmf, hypergeom.pmf(np.arange(min(a, b) + 1), n, a, b))
    shared = np.arange(len(pmf))
    either = first.sum() + second.sum() - shared
    jaccard = shared / np.maximum(either, 1)
    low, high = jaccard[np.minimum(np.searchsorted(np.cumsum(pmf), (0.025, 0.975)), len(pmf) - 1)]
    return float(pmf @ jaccard), float(low), float(high)


def save_neurons(path: Path, neurons: Neurons) -> None:
    """Write the neurons as an .npz, which `nex-merge score --weights` takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path, keys=neurons.keys, weights=neurons.weights, effective=neurons.effective, redundant=neurons.redundant,
        masses=neurons.masses, layer=neurons.layer, unit=neurons.unit,
    )  # fmt: skip
