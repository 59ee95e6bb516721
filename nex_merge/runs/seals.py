"""Hashes of what a run wrote, kept among its study's attributes, and compared where a file is read.

They stand in the database and not beside the files, so that who changes a file doesn't change its hash. All are
attributes of the study: those of a finished trial can't be changed, and its files can, by `rescore --capture`.
"""

import json
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, column, insert, inspect, select, table, update

from nex_merge.errors import NexMergeError
from nex_merge.runs.database import Database

# Optuna's tables.
_STUDIES = table("studies", column("study_id"), column("study_name"))
_ATTRIBUTES = table("study_user_attributes", column("study_id"), column("key"), column("value_json"))
# Versions of a file that count as written. Copies of a run on one storage write the same trials, with other times, and
# a process may be killed between a new hash and the file.
KEPT = 8
WAIT = 5.0  # seconds that whoever only reads waits for the database

Hashes = dict[str, str]
T = TypeVar("T")


class Seals:
    """The hashes in a study. A study that can't be reached has none, which is said once."""

    def __init__(self, connect: Callable[[bool], Database], study: str, note: Callable[[str], None]) -> None:
        """`connect` gives the database, to be read only or not, or raises InputError.

        `study`: the run's name for its study. study.db of a run folder has one study, whatever its name; that of
        another run, put in its place, has hashes under the other's name.
        """
        self._connect, self._name, self._note = connect, study, note
        self._prefix = f"nex_merge:{study}:"
        self._study: int | None = None
        self._known: dict[str, list[Hashes]] | None = None
        self.is_reached = True

    def of(self, key: str, anew: bool = False) -> list[Hashes]:
        """The hashes by file of what was written under a key, the latest first; none if there are none.

        All are read at once, the first time; `anew`: what another process may have added since is read too.
        """
        known = self._all()
        if anew or key not in known:
            known |= self._step(lambda connection: self._read(connection, key)) or {}
        return known.get(key, [])

    def _all(self) -> dict[str, list[Hashes]]:
        if self._known is None:
            self._known = self._step(self._read) or {}
        return self._known

    def known(self) -> list[str]:
        """What there are hashes of."""
        return list(self._all())

    def add(self, key: str, hashes: Hashes) -> None:
        """Add what is about to be written. Without a study, nothing is added."""

        def write(connection: Connection) -> list[Hashes]:
            kept = [hashes, *(one for one in self._read(connection, key).get(key, []) if one != hashes)][:KEPT]
            place = (_ATTRIBUTES.c.study_id == self._study) & (_ATTRIBUTES.c.key == self._prefix + key)
            text = json.dumps(kept)
            if connection.execute(update(_ATTRIBUTES).where(place).values(value_json=text)).rowcount == 0:
                row = {"study_id": self._study, "key": self._prefix + key, "value_json": text}
                connection.execute(insert(_ATTRIBUTES).values(row))
            return kept

        if hashes in self.of(key)[:1]:
            return
        kept = self._step(write, read_only=False)
        if kept is not None:
            self._all()[key] = kept

    def _step(self, step: Callable[[Connection], T], read_only: bool = True) -> T | None:
        """What a step on the study's attributes gives; None if there is no study, or it can't be reached."""
        if not self.is_reached:
            return None
        try:
            database = self._connect(read_only)
            if database.path is not None and not database.path.is_file():
                return None

            def run() -> T | None:
                with database.engine.begin() as connection:
                    return step(connection) if self._find(connection, database) else None

            return database.run(run)
        except NexMergeError as error:
            self.is_reached = False
            self._note(str(error))
            return None

    def _find(self, connection: Connection, database: Database) -> bool:
        """Whether the database has the study."""
        if not inspect(connection).has_table(_ATTRIBUTES.name):
            return False
        found = {name: id for id, name in connection.execute(select(_STUDIES.c.study_id, _STUDIES.c.study_name))}
        only = next(iter(found.values())) if database.is_own and len(found) == 1 else None
        self._study = only if only is not None else found.get(self._name)
        return self._study is not None

    def _read(self, connection: Connection, key: str = "") -> dict[str, list[Hashes]]:
        """What stands under a key, or under all."""
        name = _ATTRIBUTES.c.key
        chosen = name == self._prefix + key if key else name.startswith(self._prefix, autoescape=True)
        rows = connection.execute(
            select(name, _ATTRIBUTES.c.value_json).where((_ATTRIBUTES.c.study_id == self._study) & chosen)
        )
        found = {name.removeprefix(self._prefix): _parsed(text) for name, text in rows}
        return {name: hashes for name, hashes in found.items() if hashes}


def _parsed(text: str) -> list[Hashes]:
    """What an attribute holds; nothing if the database was damaged there."""
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return found if isinstance(found, list) and all(isinstance(item, dict) for item in found) else []
