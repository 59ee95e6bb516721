"""The choice of neurons, against brute force."""

import numpy as np
import pytest

from nex_merge.errors import InputError
from nex_merge.inspect.neurons import total_credit, total_masses
from nex_merge.inspect.transfer.neuron_sets import NEAREST, choose_sets, matched_controls, split_by_seed
from nex_merge.nex.credit import sum_credit
from nex_merge.nex.good_mass import neuron_weights
from nex_merge.records import Credits, Evidence, SparseGroups

LAYERS, UNITS = 3, 40


@pytest.fixture
def norms():
    rng = np.random.default_rng(0)
    return [rng.lognormal(size=UNITS) for _ in range(LAYERS)]


def keys_of(*neurons):
    return np.array([layer << 16 | unit for layer, unit in neurons], np.uint32)


def make_evidence(responses=8, samples=1, seed=0):
    """Every neuron is active in every response, and a random half of them has credit."""
    rng = np.random.default_rng(seed)
    every = np.array([layer << 16 | unit for layer in range(LAYERS) for unit in range(UNITS)], np.uint32)
    credited = [np.sort(rng.choice(every, len(every) // 2, replace=False)) for _ in range(responses)]
    ptr = np.arange(responses + 1) * len(every)
    masses = rng.exponential(size=responses * len(every)).astype(np.float16)
    effective, redundant = rng.exponential(size=(2, responses * len(credited[0]))).astype(np.float32)
    credits = Credits(np.arange(responses + 1) * len(credited[0]), np.concatenate(credited), effective, redundant)
    return Evidence(np.arange(responses) // samples, SparseGroups(ptr, np.tile(every, responses), masses), credits)


def test_random_neurons_have_the_same_layers_and_are_others(norms):
    keys = keys_of((0, 1), (0, 5), (0, 39), (2, 0), (2, 7))
    draws = {tuple(matched_controls(keys, norms, np.random.default_rng(seed)).tolist()) for seed in range(20)}
    assert len(draws) > 15
    for drawn in draws:
        assert sorted(drawn) == list(drawn) and len(set(drawn)) == 5 and not set(drawn) & set(keys.tolist())
        assert [key >> 16 for key in drawn] == [0, 0, 0, 2, 2]


def test_the_nearest_norm_by_brute_force(norms):
    keys = keys_of((0, 1), (0, 5), (1, 9), (1, 10), (1, 11))
    found = matched_controls(keys, norms, np.random.default_rng(3), nearest=1)
    # The same order of drawing, then the nearest norm that is left, each time looked for among all.
    rng, expected = np.random.default_rng(3), set()
    for layer, units in ((0, [1, 5]), (1, [9, 10, 11])):
        for unit in rng.permutation(np.array(units)):
            others = [u for u in range(UNITS) if u not in units and (layer, u) not in expected]
            expected.add((layer, min(others, key=lambda u: abs(norms[layer][u] - norms[layer][unit]))))
            rng.choice(1)
    assert {(int(key) >> 16, int(key) & 0xFFFF) for key in found} == expected


def test_controls_are_drawn_from_all_of_the_nearest_neighbours(norms):
    keys = keys_of((1, 20))
    order = np.argsort(np.abs(norms[1] - norms[1][20]))
    near = set(order[1 : NEAREST + 1].tolist())  # the first is the neuron itself
    drawn = {int(matched_controls(keys, norms, np.random.default_rng(seed))[0]) & 0xFFFF for seed in range(200)}
    assert drawn == near


def test_a_layer_with_too_few_others_is_rejected(norms):
    keys = keys_of(*((1, unit) for unit in range(21)))
    with pytest.raises(InputError, match="21 of the 40 neurons of layer 1 are chosen, which leaves 19 to draw from"):
        matched_controls(keys, norms, np.random.default_rng(0))
    assert len(matched_controls(keys[1:], norms, np.random.default_rng(0))) == 20


def test_one_seed_uses_all_responses_and_several_use_halves_of_the_prompts():
    prompts = np.repeat(np.arange(6), 2)  # two samples each
    assert split_by_seed(prompts, 1)[0].tolist() == list(range(12))
    first, second, third = split_by_seed(prompts, 3)
    assert sorted([*first, *second]) == list(range(12))
    assert first.tolist() != third.tolist()
    for part in (first, second, third):
        assert len(part) == 6 and sorted(np.unique(prompts[part]).repeat(2)) == sorted(prompts[part])
    with pytest.raises(
        InputError, match="--seeds: expected 1, got 2: several seeds split the prompts, and there is only one"
    ):
        split_by_seed(np.zeros(3, int), 2)


def test_mass_and_credit_can_be_those_of_some_responses():
    whole, chosen = make_evidence(), np.array([1, 4])
    keys, masses = total_masses(whole.base, chosen)
    credit = total_credit(whole.credits, chosen)
    expected = [{}, {}, {}]
    for response in (1, 4):
        own = whole.credits.of(response)
        for total, names, values in zip(
            expected, (whole.base.group(response)[0], own.keys, own.keys),
            (whole.base.group(response)[1], own.effective, own.redundant), strict=True,
        ):  # fmt: skip
            for key, value in zip(names.tolist(), values.tolist(), strict=True):
                total[key] = total.get(key, 0) + value
    assert dict(zip(keys.tolist(), masses.tolist(), strict=True)) == pytest.approx(expected[0])
    for values, total in zip((credit.effective, credit.redundant), expected[1:], strict=True):
        assert dict(zip(credit.keys.tolist(), values.tolist(), strict=True)) == pytest.approx(total)


def test_the_chosen_have_the_largest_weight_times_mass(norms):
    evidence = make_evidence()
    totals = {int(key): [0.0, 0.0, 0.0] for key in np.unique(evidence.base.keys)}
    for response in range(8):
        own = evidence.credits.of(response)
        for key, e, r in zip(own.keys.tolist(), own.effective, own.redundant, strict=True):
            totals[key][0] += e
            totals[key][1] += r
        for key, m in zip(*evidence.base.group(response), strict=True):
            totals[int(key)][2] += float(m)
    parts = {key: np.tanh(np.log((e + 1e-6) / (r + 1e-6))) * m for key, (e, r, m) in totals.items()}
    order = sorted(parts, key=lambda key: -parts[key])
    found = {
        (item.neurons, item.count): item for item in choose_sets(evidence, norms, ["effective", "redundant"], [4, 9], 1)
    }
    for count in (4, 9):
        assert found["effective", count].keys.tolist() == sorted(order[:count])
        assert found["redundant", count].keys.tolist() == sorted(order[-count:])
    one = found["effective", 4]
    assert one.mean_mass == pytest.approx(np.mean([totals[key][2] for key in order[:4]]))
    assert one.mean_norm == pytest.approx(np.mean([norms[key >> 16][key & 0xFFFF] for key in order[:4]]))
    assert sum(one.layers.values()) == 4


def test_random_sets_match_the_layers_of_the_effective_set_of_their_seed(norms):
    found = choose_sets(make_evidence(), norms, ["effective", "redundant", "random"], [3, 12], 3)
    assert [(item.seed, item.count, item.neurons) for item in found[:4]] == [
        (0, 3, "effective"), (0, 3, "redundant"), (0, 3, "random"), (0, 12, "effective"),
    ]  # fmt: skip
    for effective, redundant, random in zip(found[::3], found[1::3], found[2::3], strict=True):
        assert effective.layers == random.layers
        assert not np.isin(random.keys, effective.keys).any() and not np.isin(redundant.keys, effective.keys).any()
    assert found[0].keys.tolist() != found[6].keys.tolist()  # other prompts
    alone = choose_sets(make_evidence(), norms, ["random"], [3], 3)
    assert [item.keys.tolist() for item in alone] == [found[i].keys.tolist() for i in (2, 8, 14)]


def test_alike_sets_are_effective_neurons_matched_to_the_redundant_set(norms):
    evidence = make_evidence()
    found = choose_sets(evidence, norms, ["redundant", "alike"], [6], 4)
    for seed, (redundant, alike) in enumerate(zip(found[::2], found[1::2], strict=True)):
        assert (redundant.seed, alike.neurons, alike.layers) == (seed, "alike", redundant.layers)
        responses = split_by_seed(evidence.prompts, 4)[seed]
        weights = neuron_weights(sum_credit([evidence.credits.of(response) for response in responses]))
        masses = np.zeros((LAYERS, UNITS))
        for response in responses:
            for key, mass in zip(*evidence.base.group(response), strict=True):
                masses[key >> 16, key & 0xFFFF] += mass
        effective = weights.keys[weights.weights > 0]
        expected = matched_controls(redundant.keys, list(masses), np.random.default_rng([seed, 6]), among=effective)
        assert alike.keys.tolist() == expected.tolist() and np.isin(alike.keys, effective).all()


def test_controls_are_drawn_among_the_given_neurons(norms):
    keys, among = keys_of((0, 1), (0, 5), (1, 9)), keys_of((0, 5), (0, 6), (0, 30), (1, 2), (2, 2))
    for seed in range(5):
        found = matched_controls(keys, norms, np.random.default_rng(seed), among=among)
        assert found.tolist() == keys_of((0, 6), (0, 30), (1, 2)).tolist()
    with pytest.raises(InputError, match="2 of the 40 neurons of layer 0 are chosen, which leaves 1 to draw from"):
        matched_controls(keys, norms, np.random.default_rng(0), among=among[1:2])


def test_too_large_a_count_is_rejected(norms):
    with pytest.raises(
        InputError, match=r"--count: expected at most \d+, got 999: the donor has .* to 8 prompts \(seed 0\)"
    ):
        choose_sets(make_evidence(), norms, ["effective"], [999], 1)
