"""The contract of claims, and what happens to a trial whose owner is gone."""

import platform
import time
from threading import Barrier, Thread

import pytest
from sqlalchemy import create_engine

from nex_merge.errors import RunError
from nex_merge.runs import claims as module
from nex_merge.runs.claims import EXPIRY, Claim, Claims, claimed, describe, new_owner

ELSEWHERE = "elsewhere|1|1|aaaa"


@pytest.fixture
def claims(tmp_path):
    return Claims(create_engine(f"sqlite:///{tmp_path}/study.db"), "study")


def test_one_owner_at_a_time(claims):
    mine = new_owner()
    assert claims.take(3, mine) and claims.take(3, mine), "taking one's own again renews it"
    assert not claims.take(3, ELSEWHERE)
    assert claims.holder(3).owner == mine and claims.holder(4) is None
    claims.release(3, ELSEWHERE)
    assert claims.holder(3) is not None, "only the owner gives a claim up"
    claims.release(3, mine)
    assert claims.take(3, ELSEWHERE)


def test_a_heartbeat_renews_and_tells_when_the_claim_is_lost(claims, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    assert claims.take(0, ELSEWHERE)
    clock[0] += EXPIRY - 1
    assert claims.beat(0, ELSEWHERE) and claims.holder(0).beat == clock[0]
    assert not claims.beat(0, "elsewhere|2|2|bbbb") and not claims.beat(7, ELSEWHERE)


def test_a_silent_owner_of_another_host_expires(claims, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    assert claims.take(0, ELSEWHERE)
    clock[0] += EXPIRY - 1
    assert not claims.take(0, new_owner())
    clock[0] += 2
    mine = new_owner()
    assert claims.take(0, mine) and not claims.beat(0, ELSEWHERE)


def test_a_dead_process_of_this_host_is_gone_at_once(claims):
    assert claims.take(0, f"{platform.node()}|999999999|1|cccc")
    assert claims.take(0, new_owner())


def test_of_many_that_take_at_once_one_gets_it(claims):
    start, won = Barrier(8), []

    def take(owner):
        start.wait()
        if claims.take(5, owner):
            won.append(owner)

    threads = [Thread(target=take, args=(f"elsewhere|{i}|1|dddd",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and claims.holder(5).owner == won[0]


def test_studies_in_one_database_do_not_meet(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/study.db")
    assert Claims(engine, "one").take(0, ELSEWHERE) and Claims(engine, "two").take(0, new_owner())


def test_a_claim_is_held_for_as_long_as_the_trial_takes(claims):
    mine = new_owner()
    with claimed(claims, 2, mine):
        assert claims.holder(2).owner == mine
    assert claims.holder(2) is None
    assert claims.take(2, ELSEWHERE)
    other = r"being evaluated by another search \(process 1 on elsewhere\)"
    with pytest.raises(RunError, match=other), claimed(claims, 2, mine):
        pass


def test_what_was_taken_over_is_not_told(claims, monkeypatch):
    mine = new_owner()
    with pytest.raises(RunError, match="taken over"), claimed(claims, 2, mine):
        claims.release(2, mine)
        claims.take(2, ELSEWHERE)
    assert claims.holder(2).owner == ELSEWHERE


def test_the_heart_beats(claims, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.01)
    with claimed(claims, 2, new_owner()):
        first = claims.holder(2).beat
        deadline = time.time() + 5
        while claims.holder(2).beat == first and time.time() < deadline:
            time.sleep(0.01)
        assert claims.holder(2).beat > first


def test_owners_in_words():
    assert describe(ELSEWHERE) == "process 1 on elsewhere"
    assert Claim(ELSEWHERE, 0.0).is_stale(EXPIRY + 1) and not Claim(ELSEWHERE, 0.0).is_stale(1)
