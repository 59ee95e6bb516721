"""The claim on a study. It has an owner and a heartbeat, and expires when the heartbeat stops.

A study has one driver. The lock of a run folder keeps out a second search in the same folder, where all see the same
locks. The claim does so for a study, whoever shares its database: a standby on another host, or a copy of the folder.
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
from sqlalchemy import Column, Connection, Double, Engine, Integer, MetaData, String, Table, func, inspect, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from nex_merge import interrupts
from nex_merge.errors import InUse

# Seconds without a heartbeat after which a claim may be taken over; between two heartbeats; and after one that failed.
EXPIRY = 45.0
HEARTBEAT = 10.0
RETRY = 1.0

_STUDY = -1  # the row of the study itself; earlier versions claimed trials, by their numbers


@dataclass(frozen=True)
class Claim:
    """A study that is being driven."""

    owner: str  # see `new_owner`
    beat: float  # last heartbeat, seconds since the epoch
    age: float  # seconds since then

    @property
    def is_stale(self) -> bool:
        """Whether the owner is gone: no heartbeat for `EXPIRY` seconds, or a process of this host that has ended."""
        return self.age > EXPIRY or not _may_run(self.owner)


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
    """The claim on one study. Every method is atomic, also with other users of the same database."""

    def __init__(self, engine: Engine, study: str) -> None:
        # Every statement is a transaction: of a host that vanished within one, the server would keep the row locked.
        self._engine, self.study = engine.execution_options(isolation_level="AUTOCOMMIT"), study
        self._table = Table(
            "nex_merge_claims",
            MetaData(),
            Column("study", String(255), primary_key=True),
            Column("trial", Integer, primary_key=True, autoincrement=False),
            Column("owner", String(255), nullable=False),
            Column("beat", Double, nullable=False),
        )
        self._place = (self._table.c.study == study) & (self._table.c.trial == _STUDY)

    def create(self) -> None:
        """Create the table unless it is there."""
        self._table.create(self._engine, checkfirst=True)

    def take(self, owner: str) -> bool:
        """Claim the study, or renew the owner's claim; False if another owner holds it and is not gone."""
        try:
            with self._engine.connect() as connection:
                row = {"study": self.study, "trial": _STUDY, "owner": owner, "beat": _now(connection)}
                connection.execute(self._table.insert().values(row))
            return True
        except IntegrityError:
            held = self.holder()
        if held is None:
            return self.take(owner)  # released in between
        # Unless it was renewed, or taken, since it was read.
        return (held.owner == owner or held.is_stale) and self._renew(owner, held.owner, held.beat)

    def beat(self, owner: str) -> bool:
        """Renew a claim; False if this owner no longer holds it."""
        return self._renew(owner, owner)

    def _renew(self, owner: str, holder: str, beat: float | None = None) -> bool:
        """Give the holder's claim, of this heartbeat if there is one, to an owner; False if it is another by now."""
        same = self._place & (self._table.c.owner == holder)
        same = same if beat is None else same & (self._table.c.beat == beat)
        with self._engine.connect() as connection:
            changed = self._table.update().where(same).values(owner=owner, beat=_now(connection))
            return connection.execute(changed).rowcount == 1

    def release(self, owner: str) -> None:
        """Release the claim; does nothing if another owner holds it."""
        with self._engine.connect() as connection:
            connection.execute(self._table.delete().where(self._place & (self._table.c.owner == owner)))

    def holder(self) -> Claim | None:
        """The claim on the study, stale or not; None if there is none. Changes nothing, also in a new database."""
        with self._engine.connect() as connection:
            if not inspect(connection).has_table(self._table.name):
                return None
            row = connection.execute(select(self._table.c.owner, self._table.c.beat).where(self._place)).first()
            return None if row is None else Claim(row.owner, row.beat, _now(connection) - row.beat)

    def check_free(self) -> None:
        """Raise InUse if the study is being driven."""
        held = self.holder()
        if held is not None and not held.is_stale:
            raise _in_use(self.study, held)


def _now(connection: Connection) -> float:
    """Seconds since the epoch, by PostgreSQL's clock where it is that: those of two hosts may be a minute apart."""
    if connection.dialect.name != "postgresql":
        return time.time()
    return connection.execute(select(func.date_part("epoch", func.clock_timestamp()))).scalar_one()


def _in_use(study: str, held: Claim | None) -> InUse:
    by = f" ({describe(held.owner)})" if held is not None else ""
    return InUse(
        f"the study {study} is driven by another search{by}",
        "Wait for it or end it, search in another folder (--out), or take over when it ends (--standby)",
    )


@contextmanager
def claimed(
    claims: Claims, owner: str, patiently: Callable[[Callable[[], bool]], bool] = lambda step: step()
) -> Iterator[None]:
    """Hold the claim on a study, with its heartbeat.

    `patiently` takes the claim, and may wait for the database. Raises InUse if another owner holds it.
    """
    if not patiently(lambda: claims.take(owner)):
        raise _in_use(claims.study, claims.holder())
    done = threading.Event()

    def keep() -> None:
        pause = HEARTBEAT
        while not done.wait(pause):
            try:
                if not claims.beat(owner):
                    return  # taken over
                pause = HEARTBEAT
            except SQLAlchemyError:  # another program holds the database, or the server restarts
                pause = RETRY

    heart = threading.Thread(target=keep, name="heartbeat", daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()
        # A claim that can't be released now expires by itself.
        with suppress(SQLAlchemyError), interrupts.held():
            claims.release(owner)
