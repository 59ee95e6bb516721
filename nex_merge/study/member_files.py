"""The members' files are, before and after every trial, what they were when the search began.

A parent that is overwritten in place while a search runs would mix two parents in one ranking, and, as weights are
mapped into memory, in one merge.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError
from nex_merge.runs import custody
from nex_merge.setup.families import merged_folder, plain_folders
from nex_merge.setup.fingerprints import files_of, fingerprint, settings_of
from nex_merge.setup.resolve import ResolvedConfig


class MemberFiles:
    """What tells whether the files of a family have changed: sizes, times, inodes; fingerprints if one moved."""

    def __init__(self, resolved: ResolvedConfig) -> None:
        """Raises InputError if a file has changed since `resolved` was made."""
        self._resolved, family = resolved, resolved.family
        folders = {*family.folders.values()}
        for member in family.adapters.values():
            folders |= {member.base, member.adapter}
        self._paths = [path for folder in folders for path in files_of(folder)]
        self._merged = {name: fingerprint(family.folders[name]) for name in family.adapters}
        self._states = self._look()
        self._compare()

    def check(self) -> None:
        """Raise InputError, in the words of a search that is begun with other files, if a member is another."""
        states = self._look()
        if states != self._states:
            self._compare()
            self._states = states  # touched, or copied back

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """`check` before and after the block, also if it failed, as it may have read half of a file."""
        self.check()
        try:
            yield
        except Exception:  # any, which is raised again unless a changed file explains it
            self.check()
            raise
        self.check()

    def _look(self) -> list[tuple[int, ...] | None]:
        return [_state(path) for path in self._paths]

    def _compare(self) -> None:
        was = {key: self._resolved.resolved[key] for key in ("checkpoints", "settings")}
        now = self._fingerprints()
        if now == was:
            return
        custody.compare(replace(self._resolved, resolved={**self._resolved.resolved, **now}))
        # A run that has begun nothing yet, or of a version that recorded no fingerprints.
        members = self._resolved.family.folders
        changed = [name for name in members if any(was[key].get(name) != now[key].get(name) for key in now)]
        raise InputError(
            f"{self._resolved.run}: the files of {', '.join(changed)} changed since the run was started. Put them "
            "back; the same command then goes on"
        )

    def _fingerprints(self) -> dict[str, dict[str, Any]]:
        family = self._resolved.family
        plain = plain_folders(family)
        checkpoints = {name: fingerprint(folder) for name, folder in plain.items()}
        for name, member in family.adapters.items():
            is_same = fingerprint(family.folders[name]) == self._merged[name]
            checkpoints[name] = merged_folder(member, name).name if is_same else "another merged checkpoint"
        return {"checkpoints": checkpoints, "settings": {name: settings_of(folder) for name, folder in plain.items()}}


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
