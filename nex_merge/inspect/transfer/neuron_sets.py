"""Which neurons are copied: the donor's most effective, its most redundant, or matched controls.

Pure NumPy. Symbols: K neurons to copy, L layers of U units, P prompts, S seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nex_merge.errors import InputError
from nex_merge.inspect.neurons import layer_sizes, lookup, total_credit, total_masses, weighted_neurons
from nex_merge.records import Evidence
from nex_merge.resampling import halves
from nex_merge.wording import counted

# The controls. random: matched to effective in layer and norm. alike: effective neurons matched to redundant in layer
# and mass, because the most effective neurons are far more active than the most redundant ones.
MATCHED_TO = {"random": "effective", "alike": "redundant"}
# Controls are drawn from this many nearest neighbours; with a single one, all seeds would draw nearly the same.
NEAREST = 8


@dataclass(frozen=True)
class NeuronSet:
    """A set of neurons to copy."""

    neurons: str  # effective | redundant | random | alike
    count: int
    seed: int
    keys: np.ndarray  # uint32 [K], ascending
    mean_norm: float  # of the donor's weights
    mean_mass: float  # activation mass in the donor's responses they were chosen from

    @property
    def layers(self) -> dict[int, int]:
        """The number of neurons in each layer that has any."""
        sizes = layer_sizes(self.keys)
        return {int(layer): int(sizes[layer]) for layer in np.flatnonzero(sizes)}


def choose_sets(
    evidence: Evidence, norms: Sequence[np.ndarray], sets: Sequence[str], counts: Sequence[int], seeds: int
) -> list[NeuronSet]:
    """The sets of neurons to copy, seed by seed.

    `evidence`: the donor's responses. `norms`: the norms of its neurons, one float [U] per layer. `effective` and
    `redundant` are the K neurons of that sign with the largest |w| m; for the controls see MATCHED_TO. A single seed
    uses all responses. With several, each uses a random half of the prompts (seeds 2 i and 2 i + 1 use complementary
    halves) and draws controls independently. Raises InputError if there are too few neurons.
    """
    found = []
    for seed, responses in enumerate(split_by_seed(evidence.prompts, seeds)):
        keys, masses = total_masses(evidence.base, responses)
        donor = weighted_neurons(total_credit(evidence.credits, responses), keys, masses)
        ranked = {"effective": donor.ranked(True), "redundant": donor.ranked(False)}
        by_mass = [np.zeros(len(layer)) for layer in norms]
        for key, mass in zip(keys.tolist(), masses, strict=True):
            by_mass[key >> 16][key & 0xFFFF] = mass
        for count in counts:
            for name in sets:
                kind = MATCHED_TO.get(name, name)
                if len(ranked[kind]) < count:
                    prompts = counted(len(np.unique(evidence.prompts[responses])), "prompt")
                    raise InputError(
                        f"--count: expected at most {len(ranked[kind])}, got {count}: the donor has that many {kind} "
                        f"neurons in its responses to {prompts} (seed {seed}). Use more prompts or copy fewer neurons"
                    )
                chosen = np.sort(donor.keys[ranked[kind][:count]])
                if name == "random":
                    chosen = matched_controls(chosen, norms, np.random.default_rng([seed, count]))
                elif name == "alike":
                    effective = donor.keys[donor.is_effective]
                    chosen = matched_controls(chosen, by_mass, np.random.default_rng([seed, count]), among=effective)
                mean_norm = float(np.mean([norms[key >> 16][key & 0xFFFF] for key in chosen.tolist()]))
                mean_mass = float(lookup(chosen, keys, masses).mean())
                found.append(NeuronSet(name, count, seed, chosen, mean_norm, mean_mass))
    return found


def split_by_seed(prompts: np.ndarray, seeds: int) -> list[np.ndarray]:
    """The responses that each seed uses, as positions in `prompts`, int64 [R]: all for a single seed, else a half."""
    if seeds == 1:
        return [np.arange(len(prompts))]
    if len(np.unique(prompts)) < 2:
        raise InputError(
            f"--seeds: expected 1, got {seeds}: several seeds split the prompts, and there is only one prompt"
        )
    return [np.flatnonzero(counts) for counts in halves(prompts, -(-seeds // 2))[:seeds]]


def matched_controls(
    keys: np.ndarray,
    values: Sequence[np.ndarray],
    rng: np.random.Generator,
    nearest: int = NEAREST,
    among: np.ndarray | None = None,
) -> np.ndarray:
    """Random neurons with the same layers as `keys` and similar values, none of them in `keys`; uint32 [K] ascending.

    In random order, each of `keys` draws one of the `nearest` remaining neurons of its layer by value (`values`: one
    float [U] per layer). `among`: the neurons that may be drawn; None: all. Raises InputError if a layer has too few.
    """
    drawn = []
    for layer in np.unique(keys >> 16).tolist():
        units = (keys[keys >> 16 == layer] & 0xFFFF).astype(np.int64)
        others = np.arange(len(values[layer])) if among is None else among[among >> 16 == layer] & 0xFFFF
        left = np.setdiff1d(others.astype(np.int64), units)
        if len(left) < len(units):
            raise InputError(
                f"--count: too many for matched controls: {len(units)} of the {len(values[layer])} neurons of layer "
                f"{layer} are chosen, which leaves {len(left)} to draw from. Copy fewer neurons"
            )
        for unit in rng.permutation(units):
            distance = np.abs(values[layer][left] - values[layer][unit])
            near = np.argsort(distance, kind="stable")[:nearest]
            at = rng.choice(near)
            drawn.append(layer << 16 | int(left[at]))
            left = np.delete(left, at)
    return np.sort(np.array(drawn, np.uint32))
