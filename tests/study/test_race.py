"""Racing: which prompts come first, when a merge ends early, what is told of it, and that kills change nothing."""

import json
from dataclasses import replace

import numpy as np
import optuna
import pytest

from nex_merge.errors import InputError
from nex_merge.records import Response
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.results import read_reliability
from nex_merge.runs.run import RunFolder
from nex_merge.study import race
from nex_merge.study.race import chance_to_overtake
from nex_merge.study.samplers import stable_seed
from tests.engines.fakes import FakeEngine
from tests.rows import by_column
from tests.searches import search

RACED = {"trials": 16, "objective": "consensus", "pruner": "wilcoxon", "block": 4}
PROMPTS = 24


class Skilled(FakeEngine):
    """Right on a share of the prompts that falls with how far a merge's weights are from equal; wrong answers scatter.

    Base and parents are right on half of the prompts. What is right is a function of recipe and prompt alone.
    """

    def __init__(self):
        super().__init__()
        self.asked = []

    def load(self, recipe):
        digest = super().load(recipe)
        weights = [model["parameters"]["weight"] for model in recipe.config.get("models", []) if "parameters" in model]
        self.skill = 0.5 if len(weights) < 2 else 1 - 0.9 * min(1, sum(abs(w - 0.5) for w in weights))
        self.name = digest
        return digest

    def answer(self, prompts, config, drafts=(), notify=lambda tokens: None, only=None):
        wanted = range(len(prompts)) if only is None else sorted(only)
        self.asked.append(list(wanted))
        return [Response(i, 0, tuple(prompts[i]), (1, 2, 3, 4, 5, 6), self.reply(i), False) for i in wanted]

    def reply(self, prompt):
        draw = stable_seed("skill", self.name, prompt) / 2**31
        return f"The answer is {1000 + prompt if draw < self.skill else stable_seed(self.name, prompt) % 997}."


def raced(config, engine=None, **study):
    settings = {"prompts": {"file": "configs/prompts/qwen3_tiny.jsonl", "limit": PROMPTS}, "study": {**RACED, **study}}
    return search(config, engine=engine or Skilled(), **settings)


def test_merges_that_are_clearly_worse_end_early_and_the_pick_stays(toy_config, tmp_path):
    whole, _ = raced(toy_config, pruner="none")
    engine = Skilled()
    search_rows, _ = search(
        toy_config, engine=engine, prompts={"file": "configs/prompts/qwen3_tiny.jsonl", "limit": PROMPTS},
        study=RACED, output=str(tmp_path / "raced"),
    )  # fmt: skip
    pruned = [row for row in search_rows if row["state"] == "pruned"]
    assert pruned and all(0 < row["answered"] < 1 for row in pruned)
    assert search_rows[0]["trial"] == whole[0]["trial"], "the best trial was not ended"
    verdict, unraced = (read_reliability(tmp_path / name).of("consensus") for name in ("raced", "run"))
    missing = sum(1 - row["answered"] for row in search_rows) / len(search_rows)
    assert verdict.figures["unheard"] == pytest.approx(missing) and unraced.figures["unheard"] == 0
    assert verdict.level != "sound" and any("of the votes are missing" in reason for reason in verdict.reasons)
    complete = [int(row["trial"]) for row in search_rows if row["kind"] == "merge" and row["state"] == "complete"]
    assert int(min(row["trial"] for row in pruned)) > sorted(complete)[race.FEWEST_RIVALS - 1], "not with few merges"
    states = [row["state"] for row in search_rows]
    assert states == sorted(states, key=["complete", "pruned", "collapsed"].index), (
        "pruned ones rank below complete ones"
    )
    assert [row["consensus"] for row in pruned] == sorted((row["consensus"] for row in pruned), reverse=True)
    assert all(row["consensus_low"] is None and row["beats_parent"] is None for row in pruned)
    tokens = sum(len(block) for block in engine.asked)
    assert tokens < 0.9 * PROMPTS * 19, "fewer prompts than all trials times all prompts"
    assert next(row for row in search_rows if row["reference"])["answered"] == 1, "equal weights answer everything"
    opened = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'raced' / 'study.db'}")
    by_trial = {row["trial"]: row for row in search_rows}
    for trial in opened.trials:
        row = by_trial[f"{trial.number:04d}"]
        assert (trial.state.name == "PRUNED") == (row["state"] == "pruned")


def test_a_search_killed_between_blocks_ends_with_the_same_leaderboard(toy_config, tmp_path):
    rows, _ = raced(toy_config)

    class Dies(Skilled):
        """Killed at the second block of the third merge that races or, where that ends earlier, of a later one."""

        def answer(self, *args, **kwargs):
            if list((tmp_path / "killed").rglob("blocks-*.jsonl")) and len(self.loaded) >= 11:
                raise KeyboardInterrupt
            return super().answer(*args, **kwargs)

    output = str(tmp_path / "killed")
    settings = {"prompts": {"file": "configs/prompts/qwen3_tiny.jsonl", "limit": PROMPTS}, "study": RACED}
    with pytest.raises(KeyboardInterrupt):
        search(toy_config, engine=Dies(), output=output, **settings)
    begun = RunFolder(tmp_path / "killed").begun()
    kept = list((tmp_path / "killed" / "trials" / begun[0]).glob("blocks-*.jsonl"))
    assert len(begun) == 1 and len(kept) == 1, "it was killed between two blocks of a trial"
    done = {json.loads(line)["prompt"] for line in kept[0].read_text().splitlines()}
    engine = Skilled()
    again, _ = search(toy_config, engine=engine, output=output, **settings)
    assert again == rows
    assert not done & set(engine.asked[0]), "finished blocks are not answered again"
    assert not list((tmp_path / "killed").rglob("blocks-*.jsonl")), "blocks go once the trial has its responses"


def test_prompts_on_which_the_baselines_disagree_come_first(toy_config):
    engine = Skilled()
    raced(toy_config, engine)
    baselines, first = engine.asked[:3], engine.asked[4]
    assert all(len(block) == PROMPTS for block in [*baselines, engine.asked[3]]), "baselines and the reference: all"
    answers = {p: set() for p in range(PROMPTS)}
    check = Skilled()
    for recipe in engine.loaded[:3]:
        check.load(recipe)
        for p in answers:
            answers[p].add(check.reply(p))
    split = {p for p, found in answers.items() if len(found) > 1}
    assert len(split) >= 4 and set(first) <= split
    other = Skilled()
    search(toy_config, fresh=True, engine=other, study={**RACED, "seed": 1},
           prompts={"file": "configs/prompts/qwen3_tiny.jsonl", "limit": PROMPTS})  # fmt: skip
    assert other.asked[4] != first, "the study's seed decides which of them"


def test_a_ruined_merge_ends_within_its_first_block(toy_config):
    class Ruins(Skilled):
        """The second merge loops."""

        def answer(self, *args, **kwargs):
            found = super().answer(*args, **kwargs)
            ruined = len([r for r in self.loaded if r.kind == "merge"]) == 2
            return [replace(r, token_ids=(7,) * 6) for r in found] if ruined else found

    rows, _ = raced(toy_config, Ruins())
    (ruin,) = (row for row in rows if row["trial"] == "0001")
    assert ruin["state"] == "collapsed" and ruin["answered"] == pytest.approx(4 / PROMPTS)
    assert ruin["violation"] > 1 and "100 % loop" in ruin["reason"]


def test_an_estimate_of_the_whole_is_the_rivals_value_plus_the_mean_difference(toy_config, tmp_path):
    raced(toy_config)
    run = RunFolder(tmp_path / "run")
    from nex_merge.measures.estimates import whole_values
    from nex_merge.measures.measure import Pool
    from nex_merge.measures.registry import MEASURES

    pool = Pool(run.variants(), run.rules())
    values, plain = whole_values(MEASURES["consensus"], pool), MEASURES["consensus"].values(pool)
    places = {variant.trial: i for i, variant in enumerate(pool.variants)}
    pruned = [i for i, variant in enumerate(pool.variants) if variant.lost_to]
    for i in pruned:
        rival = places[pool.variants[i].lost_to]
        asked = plain[i].weights > 0
        expected = plain[rival].value + (plain[i].parts - plain[rival].parts)[asked].mean()
        assert values[i].value == pytest.approx(max(expected, 0))
    assert pruned
    nex = whole_values(MEASURES["nex"], pool)
    assert all(nex[i].value is None for i in pruned), "the paper's NEX takes all of a variant's responses"
    shown = {row["trial"]: row["consensus"] for row in by_column(read_rows(run))}
    assert all(shown[pool.variants[i].trial] == pytest.approx(values[i].value) for i in pruned)


def test_an_estimate_stays_within_what_the_measure_can_be():
    from nex_merge.measures.estimates import _extrapolated
    from nex_merge.measures.measure import Value
    from nex_merge.measures.registry import MEASURES

    ones = np.ones(8)
    rival = Value(0.875, np.array([0.0, 1, 1, 1, 1, 1, 1, 1]), ones)
    early = Value(1.0, np.array([1.0, 1, 0, 0, 0, 0, 0, 0]), np.array([1.0, 1, 0, 0, 0, 0, 0, 0]))
    assert _extrapolated(MEASURES["finished"], early, rival).value == 1.0
    assert _extrapolated(MEASURES["mean_tokens"], early, rival).value == pytest.approx(1.375)


def test_a_merge_that_ended_early_is_held_to_constraints_by_its_estimates(toy_config, tmp_path):
    rows, _ = raced(toy_config, constraints={"consensus": ">= 0.9"})
    pruned = [row for row in rows if row["state"] == "pruned"]
    told = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'run' / 'study.db'}").trials
    assert any(
        "unlikely to overtake trial" in row["reason"] and "constraints.consensus" in row["reason"] for row in pruned
    )
    for row in pruned:
        beyond = (0.9 - RunFolder(tmp_path / "run").find(row["trial"]).value("consensus")) / 0.9
        assert told[int(row["trial"])].constraints == {"consensus": pytest.approx(beyond)}
        assert ("constraints.consensus" in row["reason"]) == (beyond > 0)


def test_two_prompts_are_not_clear():
    many = 10**9
    assert chance_to_overtake(np.array([-1.0, -1.0]), many) == pytest.approx(0.25)
    assert chance_to_overtake(np.array([-1.0] * 4), many) == pytest.approx(1 / 16)
    assert chance_to_overtake(np.array([-1.0, 1.0, 1.0]), 4) == 1.0 and chance_to_overtake(np.zeros(8), 9) == 1.0
    assert chance_to_overtake(np.full(60, -1.0), many) < 1e-6


def test_the_chance_to_overtake_is_how_often_it_happens():
    """Of merges that are somewhat behind on 24 of 32 prompts, with leads of all sizes, as many overtake as said."""
    rng, n, prompts = np.random.default_rng(0), 24, 32
    told, happened = [], []
    for lead in rng.normal(0, 0.5, 2_500):
        differences = rng.normal(lead, 1, prompts)
        chance = chance_to_overtake(differences[:n], prompts)
        if 0.05 < chance < 0.4:
            told.append(chance)
            happened.append(differences.sum() > 0)
    assert len(told) > 200
    assert abs(np.mean(told) - np.mean(happened)) < 0.05
    assert chance_to_overtake(np.array([-1.0, -1.0, 1.0, -1.0, -2.0]), 6) < 0.5 * chance_to_overtake(
        np.array([-1.0, -1.0, 1.0, -1.0, -2.0]), 10**9
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"objective": "nex"}, "study.pruner: wilcoxon compares merges prompt by prompt.*one of .*consensus"),
        ({"objective": "entropy"}, "study.pruner: wilcoxon"),
        ({"block": PROMPTS}, f"study.block: expected fewer than the {PROMPTS} prompts"),
        (
            {"constraints": {"nex": ">= 0.5"}},
            r"nex is defined only then, so they can't be held to study\.constraints\.nex",
        ),
        ({"constraints": {"finishd": ">= 0.5"}}, r"study\.constraints: unknown measure 'finishd'"),
    ],
    ids=["nex", "entropy", "block", "constraint", "misspelt"],
)
def test_what_can_not_be_raced_is_refused(toy_config, changed, message):
    with pytest.raises(InputError, match=message):
        raced(toy_config, **changed)


def test_a_longer_race_starts_with_the_trials_of_a_shorter_one(toy_config, tmp_path):
    raced(toy_config, trials=10)
    rows, _ = raced(toy_config)
    fresh, _ = search(
        toy_config, engine=Skilled(), prompts={"file": "configs/prompts/qwen3_tiny.jsonl", "limit": PROMPTS},
        study=RACED, output=str(tmp_path / "fresh"),
    )  # fmt: skip
    assert rows == fresh
