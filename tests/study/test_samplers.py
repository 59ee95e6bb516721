"""What is tried: first guesses, spread points, and TPE, which learns where random sampling does not."""

import math

import numpy as np
import optuna
import pytest

from nex_merge.errors import InputError
from nex_merge.merging import method_specs
from nex_merge.setup.search_space import load_space
from nex_merge.study.guesses import check_guesses
from nex_merge.study.proposal import dimensions_of, equal_weights, first_guesses
from nex_merge.study.samplers import GivenSampler, MergeSampler, Start

GUESSES = ({"x": 0.5, "y": 0.5}, {"x": 0.8, "y": 0.2})
START = Start(GUESSES, {"only": ("x", "y")})


def run(kind, objective, trials=40, seed=0, anew=False, seen=lambda number: None):
    """A study of x and y in [0, 1], maximized; `anew`: with a sampler made anew for every trial."""
    study = optuna.create_study(direction="maximize", sampler=MergeSampler(kind, seed, START, seen))
    for _ in range(trials):
        if anew:
            study.sampler = MergeSampler(kind, seed, START, seen)
        trial = study.ask()
        study.tell(trial, objective(trial, trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)))
    return [(t.params["x"], t.params["y"]) for t in study.trials]


def peak(trial, x, y):
    return -((x - 0.9) ** 2) - (y - 0.1) ** 2


def distance(points):
    """Median distance from the peak."""
    return float(np.median([math.hypot(x - 0.9, y - 0.1) for x, y in points]))


def test_first_guesses_then_spread_points_and_tpe_in_turns():
    drawn, again, other = (run("tpe", peak, 12, seed) for seed in (0, 0, 1))
    assert drawn == again and drawn[:2] == [(0.5, 0.5), (0.8, 0.2)]
    assert drawn[2] != other[2], "points are scrambled by the seed"
    # Spread points don't depend on what was found; TPE's do.
    flat = run("tpe", lambda trial, x, y: x, 12)
    assert drawn[2::2] == flat[2::2]
    assert sum(a != b for a, b in zip(drawn[3::2], flat[3::2], strict=True)) >= 3
    # A longer search begins with a shorter one.
    assert run("tpe", peak, 8) == drawn[:8]


def test_spread_points_fill_the_square_more_evenly_than_random_ones():
    points = run("tpe", peak, 18)[2:18:2]
    cells = {(int(2 * x), int(2 * y)) for x, y in points}
    assert len(points) == 8 and len(cells) == 4
    assert len({int(8 * x) for x, _ in points}) == len({int(8 * y) for _, y in points}) == 8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tpe_learns_and_random_sampling_does_not(seed):
    """Over the last 20 of 60 trials."""
    assert distance(run("tpe", peak, 60, seed)[40:]) < 0.5 * distance(run("random", peak, 60, seed)[40:])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_is_infeasible_is_avoided(seed):
    """The objective lures to where the constraint is violated; over the last 20 of 60 trials."""

    def lures(trial, x, y):
        trial.set_constraint("collapse", x - 0.4)
        return x

    def feasible(objective):
        return sum(x <= 0.4 for x, _ in run("tpe", objective, 60, seed)[40:]) / 20

    assert feasible(lures) >= 0.5 > 0.2 > feasible(lambda trial, x, y: x)


def test_qmc_goes_on_with_the_sobol_sequence():
    drawn = run("qmc", peak, 18)
    assert drawn[:2] == [(0.5, 0.5), (0.8, 0.2)]
    assert drawn == run("qmc", lambda trial, x, y: x, 18, anew=True), "whatever is found"
    assert drawn[2:10] == run("tpe", peak, 18)[2:18:2], "the points that TPE takes turns with"
    assert len({int(16 * x) for x, _ in drawn[2:]}) == len({int(16 * y) for _, y in drawn[2:]}) == 16


def test_qmc_has_a_sequence_for_every_method():
    dimensions = {"one": ("x",), "two": ("x", "y")}
    study = optuna.create_study(sampler=MergeSampler("qmc", 0, Start([], dimensions)))
    drawn = {"one": [], "two": []}
    for _ in range(16):
        trial = study.ask()
        method = trial.suggest_categorical("method", list(dimensions))
        drawn[method].append([trial.suggest_float(name, 0, 1) for name in dimensions[method]])
        study.tell(trial, 0.0)
    assert [len({int(8 * values[0]) for values in points}) for points in drawn.values()] == [8, 8]


def told(x, y, value):
    ranges = {name: optuna.distributions.FloatDistribution(0, 1) for name in ("x", "y")}
    return optuna.trial.create_trial(params={"x": x, "y": y}, distributions=dict(ranges), value=value)


def test_after_trials_of_another_run_tpe_follows_the_first_guess():
    """It has learnt from them where the peak is; the same trials draw the same."""
    rng = np.random.default_rng(0)
    earlier = [told(x, y, peak(None, x, y)) for x, y in rng.random((40, 2)).tolist()]

    def drawn(earlier):
        study = optuna.create_study(
            direction="maximize", sampler=MergeSampler("tpe", 0, Start(GUESSES[:1], START.dimensions, earlier))
        )
        for _ in range(12):
            trial = study.ask()
            study.tell(trial, peak(trial, trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)))
        return [(t.params["x"], t.params["y"]) for t in study.trials]

    warm = drawn(earlier)
    assert warm[0] == (0.5, 0.5) and warm == drawn(earlier)
    assert warm[1] != drawn(earlier[:20])[1]
    assert distance(warm[1:]) < 0.5 * distance(run("tpe", peak, 12)[1:])


class Stateful(optuna.samplers.BaseSampler):
    """Draws 0.1, 0.2, ... and keeps what it saw of the study."""

    def __init__(self):
        self.drawn, self.saw, self.told = 0, [], []

    def infer_relative_search_space(self, study, trial):
        self.saw.append([t.value for t in study.get_trials(states=[optuna.trial.TrialState.COMPLETE])])
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
        self.drawn += 1
        return self.drawn / 10

    def after_trial(self, study, trial, state, values):
        self.told.append(trial.number)
        study.stop()  # as those do that have tried everything


def test_a_sampler_of_ones_own_takes_over_after_the_first_guesses_and_sees_present_values():
    own = Stateful()
    recorded = {3: {"x": 0.25, "y": 0.75}}
    sampler = GivenSampler(own, START, lambda number: {f"{i:04d}": [10.0 + i] for i in range(number)}, recorded.get)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(5):
        trial = study.ask()
        study.tell(trial, peak(trial, trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)))
    drawn = [(t.params["x"], t.params["y"]) for t in study.trials]
    assert drawn == [(0.5, 0.5), (0.8, 0.2), (0.1, 0.2), (0.25, 0.75), (0.3, 0.4)]
    assert own.saw == [[10.0, 11.0], [10.0, 11.0, 12.0, 13.0]] and own.told == [0, 1, 2, 3, 4]
    assert study.trials[0].value == peak(None, 0.5, 0.5), "what was told stays"


@pytest.mark.parametrize(
    "own",
    [optuna.samplers.NSGAIISampler(seed=0), optuna.samplers.QMCSampler(scramble=True, seed=0)],
    ids=["nsga", "qmc"],
)
def test_optunas_samplers_keep_their_state_in_the_study(own):
    """Neither draws a trial twice, which one would that takes every trial for its first."""
    sampler = GivenSampler(own, START, lambda number: {"0000": [1.0]})
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(16):
        trial = study.ask()
        study.tell(trial, peak(trial, trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)))
    assert len({tuple(t.params.values()) for t in study.trials[2:]}) == 14


def test_nothing_is_remembered_between_trials():
    assert run("tpe", peak, 30, anew=True) == run("tpe", peak, 30)


def test_earlier_values_are_those_of_the_moment():
    """Under a pool, what earlier trials are worth changes."""
    turned = run("tpe", peak, 14, seen=lambda number: {f"{i:04d}": [float(i)] for i in range(number)})
    plain = run("tpe", peak, 14)
    assert turned[:3] == plain[:3] and turned[3:] != plain[3:]


def test_several_objectives_and_a_constraint_are_learnt_together():
    """x is to be large and y small, but beyond x + y = 1 nothing counts; over the last 20 of 60 trials."""

    def drawn(trials, anew=False, seen=lambda number: None):
        def sampler():
            return MergeSampler("tpe", 0, START, seen)

        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler())
        for _ in range(trials):
            study.sampler = sampler() if anew else study.sampler
            trial = study.ask()
            x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
            trial.set_constraint("x", x - 0.7)
            study.tell(trial, [x, y])
        return [(trial.params["x"], trial.params["y"]) for trial in study.trials]

    points = drawn(60)
    assert sum(x <= 0.7 and x - y >= 0.3 for x, y in points[40:]) >= 10
    assert drawn(20, anew=True) == points[:20], "nothing is remembered between trials"
    turned = drawn(14, seen=lambda number: {f"{i:04d}": (-float(i), float(i)) for i in range(number)})
    assert turned[:3] == points[:3] and turned[3:] != points[3:14], "earlier values are those of the moment"


def test_a_trial_that_was_stopped_draws_the_same_again():
    def begun(study, stopped):
        for _ in range(9):
            trial = study.ask()
            study.tell(trial, peak(trial, trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)))
        trial = study.ask()
        if stopped:
            trial.suggest_float("x", 0, 1)
            trial = optuna.Trial(study, trial._trial_id)
        return trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)

    first, second = (
        begun(optuna.create_study(direction="maximize", sampler=MergeSampler("tpe", 0, START)), stopped)
        for stopped in (False, True)
    )
    assert first == second


SPECS = method_specs()


def space(entry):
    return load_space(entry, SPECS, ["a", "b"])


def test_what_people_try_first():
    line = {"methods": ["task_arithmetic"], "parameters": {"weight": {"low": 0.0, "high": 1.2}}}
    assert [list(guess.values()) for guess in first_guesses(space(line), ["a", "b"])] == [
        [0.5, 0.5], [0.8, 0.2], [0.2, 0.8], [0.3, 0.3], [0.7, 0.7], [1.0, 1.0],
    ]  # fmt: skip
    # TIES divides by the sum of weights: a line of equal weights would be one merge again and again.
    ties = first_guesses(space("ties"), ["a", "b"])
    assert [(guess["weight.a"], guess["weight.b"]) for guess in ties] == [(0.5, 0.5), (0.8, 0.2), (0.2, 0.8)]
    assert ties[0] == equal_weights(space("ties"), ["a", "b"])
    assert [guess["t.0"] for guess in first_guesses(space("slerp"), ["a", "b"])] == [0.5, 0.2, 0.8]
    narrow = {"methods": ["linear"], "parameters": {"weight": {"choices": [0.5]}}}
    assert len(first_guesses(space(narrow), ["a", "b"])) == 1, "each once"
    alone = first_guesses(load_space(line, SPECS, ["a"]), ["a"])
    assert [guess["weight.a"] for guess in alone] == [1.0, 0.8, 0.3, 0.7], "equal weights lead, though 1 comes again"
    mine = {"weight.a": 0.9, "weight.b": 0.4}
    assert first_guesses(space(line), ["a", "b"], [mine])[:2] == [equal_weights(space(line), ["a", "b"]), mine]


@pytest.mark.parametrize(
    ("guess", "expected"),
    [
        ({"t": 0.5}, "pair.nearswap: missing"),
        ({"pair.nearswap": "a+c", "t": 0.5}, r"pair.nearswap: expected a\+b or b\+a, got 'a\+c'"),
        ({"pair.nearswap": "a+b", "t": 1.5}, "t: expected a number from 0 to 1 in steps of 0.25, got 1.5"),
        ({"pair.nearswap": "a+b", "t": 0.3}, "t: expected a number from 0 to 1 in steps of 0.25, got 0.3"),
        ({"pair.nearswap": "a+b", "t": True}, "t: expected a number"),
        ({"pair.nearswap": "a+b", "t": 0, "weight.a": 1}, "unknown parameter 'weight.a'"),
    ],
)
def test_a_guess_is_a_whole_merge_of_the_space(guess, expected):
    given = space({"methods": ["nearswap"], "parameters": {"t": {"low": 0.0, "high": 1.0, "step": 0.25}}})
    check_guesses(given, ["a", "b"], [{"pair.nearswap": "b+a", "t": 0.75}])
    with pytest.raises(InputError, match=rf"^study\.guesses\.0: {expected}"):
        check_guesses(given, ["a", "b"], [guess])


def test_the_dimensions_of_every_method():
    found = dimensions_of(space("all"), ["a", "b"])
    assert found["slerp"] == ("t",) and found["linear"] == ("weight.a", "weight.b")
    assert "gamma.a" in found["breadcrumbs"] and "gamma.a" not in found["ties"]


def test_a_conditional_space_is_spread_over_its_methods():
    study = optuna.create_study(
        direction="maximize",
        sampler=MergeSampler("tpe", 0, Start([], dimensions_of(space("all"), ["a", "b"]))),
    )
    methods = list(dimensions_of(space("all"), ["a", "b"]))
    drawn = []
    for _ in range(28):
        trial = study.ask()
        drawn.append(trial.suggest_categorical("method", methods))
        study.tell(trial, trial.suggest_float("weight.a", 0.05, 1.2))
    assert drawn[::2] == methods * 2


def at_once(parallel, told_early=(), trials=30, objective=peak):
    """As `run`, with so many trials under way: n is asked when 0 … n-parallel are told, or some more of them."""
    sampler = MergeSampler("tpe", 0, START, parallel=parallel)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    asked, told = [], 0

    def tell(until):
        nonlocal told
        for trial, x, y in asked[told:until]:
            study.tell(trial, objective(trial, x, y))
        told = max(told, until)

    for number in range(trials):
        tell(number if number in told_early else max(0, number - parallel + 1))
        trial = study.ask()
        asked.append((trial, trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)))
    return [(x, y) for _, x, y in asked]


@pytest.mark.parametrize("parallel", [2, 5])
def test_what_was_told_too_early_changes_no_proposal(parallel):
    """As after a search that was stopped, whose trials are all told when it goes on."""
    expected = at_once(parallel)
    assert at_once(parallel, told_early=range(8, 30, 3)) == expected != at_once(parallel + 1)
    # It does depend on what was told in time, and, of the others, on their parameters.
    assert expected[-1] != at_once(parallel, objective=lambda trial, x, y: x)[-1]


def test_of_one_at_a_time_nothing_is_other_than_before():
    assert at_once(1) == run("tpe", peak, 30)


def test_trials_that_tpe_knows_nothing_for_are_further_spread_points():
    drawn, one = at_once(16, trials=24), at_once(1, trials=24)
    points = drawn[2:16]
    assert drawn[:16] == at_once(16, trials=16, objective=lambda trial, x, y: x), "whatever is found"
    assert points[::2] == one[2:16:2], "the points of before keep their trials"
    assert len({int(16 * x) for x, _ in points}) == len({int(16 * y) for _, y in points}) == 14, "of one sequence"
