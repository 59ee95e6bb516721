"""Which neurons are copied: the donor's most effective, its most redundant, or controls that match these.

Pure NumPy. Symbols: K neurons to copy, L layers of U units, P prompts, S seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nex_merge.errors import InputError
from nex_merge.inspect.neurons import layer_sizes, looked_up, total_credit, total_masses, weighted_neurons
from nex_merge.nex.scoring import halves
from nex_merge.records import Credits, Evidence, SparseGroups

# random: matches the effective in layer and norm. alike: effective neurons that match the redundant in layer and mass,
# since the most effective are far more active than the most redundant.
SETS = ("effective", "redundant", "random", "alike")
# A control is one of so many neurons that are nearest: with a single one, every seed would draw much the same.
NEAREST = 8


@dataclass(frozen=True)
class Chosen:
    """Neurons to copy."""

    neurons: str  # one of SETS
    count: int
    seed: int
    keys: np.ndarray  # uint32 [K], ascending
    mean_norm: float  # of the donor's neurons
    mean_mass: float  # of their activation in the donor's answers that they were chosen by

    @property
    def layers(self) -> dict[int, int]:
        """How many of them each layer has."""
        sizes = layer_sizes(self.keys)
        return {int(layer): int(sizes[layer]) for layer in np.flatnonzero(sizes)}


def choose(
    evidence: Evidence, norms: Sequence[np.ndarray], sets: Sequence[str], counts: Sequence[int], seeds: int
) -> list[Chosen]:
    """The sets of neurons to copy, seed by seed.

    `evidence` is the donor's answers to the prompts, `norms` float [U] of every layer the norms of its neurons. With
    several seeds each has the answers to its own random half of the prompts (seeds 2 i and 2 i + 1 have complementary
    halves), and draws its own controls; a single seed has all answers. `effective` and `redundant` are the K neurons of
    that sign with the largest |w| m; SETS says what the controls match. Raises InputError where there are too few.
    """
    found = []
    for seed, answers in enumerate(parts_of(evidence.prompts, seeds)):
        part = taken(evidence, answers)
        keys, masses = total_masses(part.base)
        donor = weighted_neurons(total_credit(part.credits), keys, masses)
        ranked = {"effective": donor.ranked(True), "redundant": donor.ranked(False)}
        by_mass = [np.zeros(len(layer)) for layer in norms]
        for key, mass in zip(keys.tolist(), masses, strict=True):
            by_mass[key >> 16][key & 0xFFFF] = mass
        for count in counts:
            for name in sets:
                kind = {"random": "effective", "alike": "redundant"}.get(name, name)
                if len(ranked[kind]) < count:
                    raise InputError(
                        f"--count: found {count}; by its answers to {len(np.unique(part.prompts))} prompts (seed "
                        f"{seed}) the donor has {len(ranked[kind])} {kind} neurons, so at most that many would do, or "
                        "more prompts"
                    )
                chosen = np.sort(donor.keys[ranked[kind][:count]])
                if name == "random":
                    chosen = matched(chosen, norms, np.random.default_rng([seed, count]))
                elif name == "alike":
                    effective = donor.keys[donor.is_effective]
                    chosen = matched(chosen, by_mass, np.random.default_rng([seed, count]), among=effective)
                own = [norms[key >> 16][key & 0xFFFF] for key in chosen.tolist()]
                mean_mass = float(looked_up(chosen, keys, masses).mean())
                found.append(Chosen(name, count, seed, chosen, float(np.mean(own)), mean_mass))
    return found


def parts_of(prompts: np.ndarray, seeds: int) -> list[np.ndarray]:
    """The answers, as positions in `prompts` int64 [R], that each seed goes by: all for one seed, else its half."""
    if seeds == 1:
        return [np.arange(len(prompts))]
    if len(np.unique(prompts)) < 2:
        raise InputError(f"--seeds: found {seeds}, which halves the prompts, and there is one prompt; 1 would do")
    return [np.flatnonzero(counts) for counts in halves(prompts, -(-seeds // 2))[:seeds]]


def taken(evidence: Evidence, responses: np.ndarray) -> Evidence:
    """The evidence of these responses alone."""
    base, credits = evidence.base, evidence.credits
    of_base, of_credits = _entries(base.ptr, responses), _entries(credits.ptr, responses)
    return Evidence(
        evidence.prompts[responses],
        SparseGroups(_pointers(base.ptr, responses), base.keys[of_base], base.masses[of_base]),
        Credits(
            _pointers(credits.ptr, responses),
            credits.keys[of_credits],
            credits.effective[of_credits],
            credits.redundant[of_credits],
        ),
    )


def _entries(ptr: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(int(ptr[g]), int(ptr[g + 1])) for g in groups)])


def _pointers(ptr: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.diff(ptr)[groups])]).astype(np.int64)


def matched(
    keys: np.ndarray,
    values: Sequence[np.ndarray],
    rng: np.random.Generator,
    nearest: int = NEAREST,
    among: np.ndarray | None = None,
) -> np.ndarray:
    """Random neurons, uint32 [K] ascending: as many in every layer as `keys` has, none of `keys`, of like values.

    In random order every one of `keys` draws one of the `nearest` neurons of its layer whose values (float [U] a layer)
    are nearest its own and that are neither among `keys` nor drawn yet. `among`: only these may be drawn; all unless
    given. Raises InputError where a layer has too few.
    """
    drawn = []
    for layer in np.unique(keys >> 16).tolist():
        units = (keys[keys >> 16 == layer] & 0xFFFF).astype(np.int64)
        others = np.arange(len(values[layer])) if among is None else among[among >> 16 == layer] & 0xFFFF
        left = np.setdiff1d(others.astype(np.int64), units)
        if len(left) < len(units):
            raise InputError(
                f"--count: {len(units)} of the {len(values[layer])} neurons of layer {layer} are chosen, and there are "
                f"{len(left)} others to draw controls from; a smaller count would do"
            )
        for unit in rng.permutation(units):
            distance = np.abs(values[layer][left] - values[layer][unit])
            near = np.argsort(distance, kind="stable")[:nearest]
            at = rng.choice(near)
            drawn.append(layer << 16 | int(left[at]))
            left = np.delete(left, at)
    return np.sort(np.array(drawn, np.uint32))
