"""The pool while a search runs: who is in it, when its weights change, and what earlier merges are worth then."""

from dataclasses import replace

from nex_merge.measures import measure
from nex_merge.measures.estimates import Objective
from nex_merge.measures.measure import Pool, Rules, shared_weights
from nex_merge.measures.registry import MEASURES
from nex_merge.nex import calibration
from nex_merge.records import Estimate, TrialResult
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import NexConfig
from nex_merge.study import growing_pool as module
from nex_merge.study.growing_pool import GrowingPool

NEX, ENTROPY, CONSENSUS = Objective("nex", 1), Objective("entropy", -1), Objective("consensus", 1)
POOL, SELF = NexConfig(calibration="pool"), NexConfig(calibration="self")


def growing(folder, nex):
    return GrowingPool(RunFolder(folder), nex)


def trials(variants):
    return [variant.trial for variant in variants]


def test_earlier_is_who_answered_before(toy_run_copy):
    run = RunFolder(toy_run_copy)
    run.write(TrialResult("0001", "merge", "ties", "ties", 0, "failed", reason="planted"))
    run.write(replace(run.find("0002"), state="collapsed", reason="planted"))
    run.write(replace(run.find("0000"), trial="0004", state="duplicate", same_as="0000"))
    pool = growing(toy_run_copy, SELF)
    assert trials(pool.earlier("0003")) == ["base", "a", "b", "0000", "0002"]
    assert trials(pool.earlier("0005")) == ["base", "a", "b", "0000", "0002", "0003"]
    assert trials(pool.earlier("0000")) == ["base", "a", "b"] and trials(pool.earlier("a")) == ["base", "b"]


def test_a_variant_is_read_once(toy_run, monkeypatch):
    read, variant = [], RunFolder.variant
    monkeypatch.setattr(
        RunFolder, "variant", lambda self, result, nex: read.append(result.trial) or variant(self, result, nex)
    )
    pool = growing(toy_run, SELF)
    pool.earlier("0002")
    pool.earlier("0004")
    assert read == ["base", "a", "b", "0000", "0001", "0002", "0003"]


def test_the_next_merge_finds_the_answers_read_that_the_last_one_was_valued_by(toy_run, monkeypatch):
    read, votes = [], measure.Votes
    monkeypatch.setattr(measure, "Votes", lambda *given: read.append(len(given[0])) or votes(*given))
    run, pool, found = RunFolder(toy_run), growing(toy_run, SELF), {}
    for number in range(4):
        new = run.variant(run.find(f"{number:04}"), SELF)
        assert trials(pool.with_new(new, None).variants)[-1] == new.trial
        pool.with_new(new, None).fit  # noqa: B018
        found[number + 1] = pool.values(CONSENSUS, number + 1)
    assert read == [4, 5, 6, 7]
    assert found == {number: growing(toy_run, SELF).values(CONSENSUS, number) for number in found}


def test_a_variant_of_its_own_weights_has_none_from_the_pool(toy_run):
    for nex in (SELF, NexConfig(calibration="crossfit")):
        pool = growing(toy_run, nex)
        assert pool.weights(4) is None and pool.values(NEX, 4) is None and pool.values(ENTROPY, 4) is None


def test_the_weights_of_parents_never_change(toy_run, monkeypatch):
    monkeypatch.setattr(calibration, "FIRST_POOL", 2)
    pool = growing(toy_run, NexConfig(calibration="parents"))
    first = pool.weights(0)
    assert first is not None and all(pool.weights(number) is first for number in range(9))
    assert pool.values(NEX, 4) is None, "so recorded values are final"


def test_the_weights_of_a_pool_change_at_doublings_alone(toy_run, monkeypatch):
    """At 8, 16, 32, ...: here at 2, 4, 8."""
    assert calibration.FIRST_POOL == 8
    monkeypatch.setattr(calibration, "FIRST_POOL", 2)
    taught = []
    monkeypatch.setattr(
        module, "shared_weights", lambda variants, nex: taught.append(trials(variants)) or shared_weights(variants, nex)
    )
    pool = growing(toy_run, POOL)
    weights = [pool.weights(number) for number in range(6)]
    assert taught == [
        ["base", "a", "b"], ["base", "a", "b", "0000", "0001"], ["base", "a", "b", "0000", "0001", "0002", "0003"],
    ]  # fmt: skip
    assert weights[0] is weights[1] and weights[2] is weights[3] and weights[4] is weights[5]
    assert len({len(item.keys) for item in weights[::2]}) == 3, "each growth brings neurons with credit"
    # A pool of its own for every number, as after resuming, is the same.
    assert [len(growing(toy_run, POOL).weights(n).keys) for n in range(6)] == [len(item.keys) for item in weights]


def test_under_a_pool_earlier_merges_have_the_values_of_its_weights(toy_run, monkeypatch):
    monkeypatch.setattr(calibration, "FIRST_POOL", 2)
    pool, run = growing(toy_run, POOL), RunFolder(toy_run)
    assert pool.values(ENTROPY, 4) is None, "only NEX depends on the weights"
    seen = [pool.values(NEX, number) for number in range(5)]
    assert [sorted(values) for values in seen] == [[f"{i:04d}" for i in range(number)] for number in range(5)]
    for number, size in ((1, 0), (3, 2), (4, 4)):
        everyone = run.variants(POOL)
        merges = everyone[3 : 3 + number]
        weights = shared_weights(everyone[: 3 + size], POOL)
        values = MEASURES["nex"].values(Pool(merges, Rules(POOL), weights))
        assert list(seen[number].values()) == [(item.value,) for item in values]
    assert seen[3]["0000"] != seen[4]["0000"], "or the comparison shows nothing"


def test_what_compares_with_others_is_valued_among_all_earlier_ones(toy_run):
    pool, run = growing(toy_run, SELF), RunFolder(toy_run)
    for number in (1, 2, 4):
        variants = run.variants(SELF)[: 3 + number]
        values = MEASURES["consensus"].values(Pool(variants, Rules(SELF)))
        expected = {v.trial: (item.value,) for v, item in zip(variants, values, strict=True) if v.kind == "merge"}
        assert pool.values(CONSENSUS, number) == expected


def test_of_several_objectives_all_are_given(toy_run_copy):
    """Those that depend on the pool as they are now, the others as recorded; a merge that lacks one is left out."""
    run = RunFolder(toy_run_copy)
    without = run.find("0001")
    run.write(replace(without, estimates={**without.estimates, "entropy": Estimate(None)}))
    run.write(replace(run.find("0002"), trial="0004", state="duplicate", same_as="0002"))
    pool = growing(toy_run_copy, POOL)
    assert pool.values(replace(ENTROPY, others=(Objective("mean_tokens", -1),)), 4) is None, "all are final"
    for number in (3, 5):
        several = pool.values(replace(CONSENSUS, others=(ENTROPY, NEX)), number)
        consensus, nex = (pool.values(one, number) for one in (CONSENSUS, NEX))
        assert list(several) == [trial for trial in consensus if trial != "0001"] and len(several) == number - 1
        for trial, values in several.items():
            assert values == (*consensus[trial], run.find(trial).value("entropy"), *nex[trial])


def test_a_duplicate_has_the_value_of_what_it_repeats(toy_run_copy):
    run = RunFolder(toy_run_copy)
    run.write(replace(run.find("0001"), trial="0004", state="duplicate", same_as="0001"))
    pool = growing(toy_run_copy, POOL)
    assert "0004" not in pool.values(NEX, 4)
    after = pool.values(NEX, 5)
    assert after["0004"] == after["0001"]
