"""The contract of the claim on a study, in either database, and what happens to one whose owner is gone."""

import platform
import time
from threading import Barrier, Thread

import pytest
from sqlalchemy import inspect

from nex_merge.errors import InUse
from nex_merge.runs import claims as module
from nex_merge.runs import custody
from nex_merge.runs.claims import EXPIRY, HEARTBEAT, RETRY, Claim, Claims, claimed, describe, new_owner
from nex_merge.runs.database import CONNECT, Database

ELSEWHERE = "elsewhere|1|1|aaaa"


@pytest.fixture
def engine(storage, tmp_path):
    engine = Database(storage, tmp_path).engine
    yield engine
    engine.dispose()


@pytest.fixture
def claims(engine):
    return made(engine, "study")


@pytest.fixture
def clock(monkeypatch):
    """[the time]"""
    clock = [1000.0]
    monkeypatch.setattr(module, "_now", lambda connection: clock[0])
    return clock


def made(engine, study):
    claims = Claims(engine, study)
    claims.create()
    return claims


def test_one_owner_at_a_time(claims):
    mine = new_owner()
    assert claims.take(mine) and claims.take(mine), "taking one's own again renews it"
    assert not claims.take(ELSEWHERE)
    assert claims.holder().owner == mine
    claims.release(ELSEWHERE)
    assert claims.holder() is not None, "only the owner gives a claim up"
    claims.release(mine)
    assert claims.holder() is None and claims.take(ELSEWHERE)


def test_a_heartbeat_renews_and_tells_when_the_claim_is_lost(claims, clock):
    assert claims.take(ELSEWHERE)
    clock[0] += EXPIRY - 1
    assert claims.beat(ELSEWHERE) and claims.holder() == Claim(ELSEWHERE, clock[0], 0.0)
    assert not claims.beat("elsewhere|2|2|bbbb")
    claims.release(ELSEWHERE)
    assert not claims.beat(ELSEWHERE), "whoever took over may have ended by now"


def test_a_silent_owner_of_another_host_expires(claims, clock):
    assert claims.take(ELSEWHERE)
    clock[0] += EXPIRY - 1
    assert not claims.take(new_owner())
    clock[0] += 2
    assert claims.take(new_owner()) and not claims.beat(ELSEWHERE)


def test_a_standby_takes_over_within_a_minute_and_a_driver_has_time_to_be_heard():
    assert EXPIRY + custody.STANDBY + custody.GLANCE < 60
    assert HEARTBEAT + 5 * (CONNECT + RETRY) < EXPIRY, "heartbeats that a restarting server misses"


def test_a_dead_process_of_this_host_is_gone_at_once(claims):
    assert claims.take(f"{platform.node()}|999999999|1|cccc")
    assert claims.take(new_owner())


def test_of_many_that_take_at_once_one_gets_it(claims):
    start, won = Barrier(8), []

    def take(owner):
        start.wait()
        if claims.take(owner):
            won.append(owner)

    threads = [Thread(target=take, args=(f"elsewhere|{i}|1|dddd",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and claims.holder().owner == won[0]


def test_of_many_that_take_over_at_once_one_gets_it(claims):
    """As by several standbys, when the driver's host is gone."""
    assert claims.take(f"{platform.node()}|999999999|1|cccc")
    test_of_many_that_take_at_once_one_gets_it(claims)


def test_studies_in_one_database_do_not_meet(engine):
    assert made(engine, "one").take(ELSEWHERE) and made(engine, "two").take(new_owner())


def test_a_claim_of_an_earlier_version_on_a_trial_is_in_nobodys_way(claims, engine):
    with engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO nex_merge_claims VALUES ('study', 0, '{ELSEWHERE}', 1000.0)")
    assert claims.holder() is None and claims.take(new_owner())


def test_whoever_looks_creates_nothing(engine):
    claims = Claims(engine, "study")
    claims.check_free()
    assert claims.holder() is None and not inspect(engine).has_table("nex_merge_claims")
    claims.create()
    assert claims.take(ELSEWHERE)
    with pytest.raises(InUse, match=r"study is driven by another search \(process 1 on elsewhere\)\. Wait"):
        claims.check_free()


def test_a_claim_is_held_for_as_long_as_the_search_takes(claims):
    mine = new_owner()
    with claimed(claims, mine):
        assert claims.holder().owner == mine
    assert claims.holder() is None
    assert claims.take(ELSEWHERE)
    with pytest.raises(InUse, match=r"driven by another search \(process 1 on elsewhere\)"), claimed(claims, mine):
        pass


def test_what_was_taken_over_stays_with_whoever_took_it(claims, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.01)
    mine = new_owner()
    with claimed(claims, mine):
        claims.release(mine)
        claims.take(ELSEWHERE)
        time.sleep(0.1)  # several heartbeats
    assert claims.holder().owner == ELSEWHERE


def test_the_heart_beats(claims, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.01)
    with claimed(claims, new_owner()):
        first = claims.holder().beat
        deadline = time.time() + 5
        while claims.holder().beat == first and time.time() < deadline:
            time.sleep(0.01)
        assert claims.holder().beat > first


def test_owners_in_words():
    assert describe(ELSEWHERE) == "process 1 on elsewhere"
    assert Claim(ELSEWHERE, 0.0, EXPIRY + 1).is_stale and not Claim(ELSEWHERE, 0.0, 1.0).is_stale
