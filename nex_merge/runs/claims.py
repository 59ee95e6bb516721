"""Claims on trials under evaluation. A claim has an owner and a heartbeat, and expires when the heartbeat stops.

A run folder's lock keeps out a second search in the same folder. Claims do so for a shared study: copies of a run
folder on one storage, or several workers. They are kept in a separate table of the study's database.
"""

import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
from sqlalchemy import Column, Engine, Float, Integer, MetaData, String, Table, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from nex_merge import interrupts
from nex_merge.errors import RunError

# Seconds without a heartbeat after which a claim may be taken over; between two heartbeats; and after one that failed.
EXPIRY = 120.0
HEARTBEAT = 20.0
RETRY = 1.0


@dataclass(frozen=True)
class Claim:
    """A trial under evaluation."""

    owner: str  # see `new_owner`
    beat: float  # last heartbeat, seconds since the epoch

    def is_stale(self, now: float) -> bool:
        """Whether the owner is gone: no heartbeat for `EXPIRY` seconds, or a process of this host that has ended."""
        return now - self.beat > EXPIRY or not _may_run(self.owner)


def new_owner() -> str:
    """An owner for this process: host, process id, start time of the process, and a random suffix."""
    began = psutil.Process().create_time()
    return f"{platform.node()}|{os.getpid()}|{began:.0f}|{uuid.uuid4().hex[:8]}"


def describe(owner: str) -> str:
    """An owner as messages name it."""
    host, process, *_ = owner.split("|")
    return f"process {process} on {host}"


def _may_run(owner: str) -> bool:
    """Whether an owner may still be running; always True for another host, which can't be checked."""
    host, process, began, _ = owner.split("|")
    if host != platform.node():
        return True
    try:
        # Process ids are reused: it is the same process only if it started at the same time.
        return abs(psutil.Process(int(process)).create_time() - float(began)) < 2
    except psutil.NoSuchProcess:
        return False


class Claims:
    """Claims on the trials of one study. Every method is atomic, also with other users of the same database."""

    def __init__(self, engine: Engine, study: str) -> None:
        self._engine, self._study = engine, study
        metadata = MetaData()
        self._table = Table(
            "nex_merge_claims",
            metadata,
            Column("study", String(255), primary_key=True),
            Column("trial", Integer, primary_key=True, autoincrement=False),
            Column("owner", String(255), nullable=False),
            Column("beat", Float, nullable=False),
        )
        metadata.create_all(engine)

    def take(self, trial: int, owner: str) -> bool:
        """Claim a trial, or renew the owner's claim; False if another owner holds it and is not gone."""
        now = time.time()
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(self._table).values(study=self._study, trial=trial, owner=owner, beat=now))
            return True
        except IntegrityError:
            held = self.holder(trial)
        if held is None:
            return self.take(trial, owner)  # released in between
        if held.owner != owner and not held.is_stale(now):
            return False
        return self._replace(trial, held, Claim(owner, now))

    def beat(self, trial: int, owner: str) -> bool:
        """Renew a claim; False if this owner no longer holds it."""
        held = self.holder(trial)
        return held is not None and held.owner == owner and self._replace(trial, held, Claim(owner, time.time()))

    def _replace(self, trial: int, old: Claim, new: Claim) -> bool:
        """Replace a claim, unless it has changed since it was read."""
        place = (self._table.c.study == self._study) & (self._table.c.trial == trial)
        same = (self._table.c.owner == old.owner) & (self._table.c.beat == old.beat)
        with self._engine.begin() as connection:
            done = connection.execute(update(self._table).where(place & same).values(owner=new.owner, beat=new.beat))
        return done.rowcount == 1

    def release(self, trial: int, owner: str) -> None:
        """Release a claim; does nothing if another owner holds it."""
        place = (self._table.c.study == self._study) & (self._table.c.trial == trial)
        with self._engine.begin() as connection:
            connection.execute(self._table.delete().where(place & (self._table.c.owner == owner)))

    def holder(self, trial: int) -> Claim | None:
        """The claim on a trial, stale or not; None if there is none."""
        place = (self._table.c.study == self._study) & (self._table.c.trial == trial)
        with self._engine.begin() as connection:
            row = connection.execute(select(self._table.c.owner, self._table.c.beat).where(place)).first()
        return None if row is None else Claim(row.owner, row.beat)


@contextmanager
def claimed(
    claims: Claims, trial: int, owner: str, patiently: Callable[[Callable[[], bool]], bool] = lambda step: step()
) -> Iterator[None]:
    """Hold a claim, with its heartbeat, while a trial is evaluated.

    `patiently` takes and renews the claim, and may wait for the database. Raises RunError if another owner holds the
    trial, or took it over in the meantime.
    """
    if not patiently(lambda: claims.take(trial, owner)):
        held = claims.holder(trial)
        by = f" ({describe(held.owner)})" if held is not None else ""
        raise RunError(
            f"trial {trial} of this study is being evaluated by another search{by}. Wait for it, or search in "
            "another folder (--out)"
        )
    done = threading.Event()

    def keep() -> None:
        pause = HEARTBEAT
        while not done.wait(pause):
            try:
                claims.beat(trial, owner)
                pause = HEARTBEAT
            except SQLAlchemyError:  # another program holds the database; the trial itself doesn't need it
                pause = RETRY

    heart = threading.Thread(target=keep, name="heartbeat", daemon=True)
    heart.start()
    try:
        yield
        # The heartbeat ends first: two renewals of one claim at the same time would take each other for a takeover.
        done.set()
        heart.join()
        if not patiently(lambda: claims.beat(trial, owner)):
            raise RunError(f"trial {trial} was taken over by another search while this process sent no heartbeat")
    finally:
        done.set()
        heart.join()
        # A claim that can't be released now expires by itself.
        with suppress(SQLAlchemyError), interrupts.held():
            claims.release(trial, owner)
