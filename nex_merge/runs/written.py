"""Whether what is read from a run folder is what was written there, by the hashes in the run's study.

Every file is hashed once by a run that is opened. What the study has no hashes of (an earlier version made it, or it
was written anew) counts as written; caches then still have the checksums in their own manifests.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nex_merge.activations.cache import MANIFEST
from nex_merge.errors import InputError
from nex_merge.runs import files
from nex_merge.runs.seals import Hashes, Seals

CACHED, CREDITED = f"{files.CACHE}/{MANIFEST}", f"{files.CREDIT}/{MANIFEST}"
_CONFIGURATION = "configuration"  # what the hashes of config.yaml stand under
# Keys of a configuration that may change while a run goes on: where things are, how far it goes, and who does it.
_FREE = {
    "family",
    "output",
    "study.trials",
    "study.timeout",
    "study.max_tokens",
    "runtime.workers",
    "runtime.devices",
    "runtime.cluster",
    "tracking",
    "resolved.versions",
    "resolved.places",
}
_DEFINED = ("config", "dtype")  # what a family says beside its places


class Written:
    """What a run, or the final in it, has written."""

    def __init__(self, run: Path, seals: Seals, note: Callable[[str], None], within: str = "") -> None:
        """`note` is told once if the study has no hashes. `within`: the folder of a final, in the study's run."""
        self.seals, self._note = seals, note
        self._run, self._within = run, f"{within}/" if within else ""
        self._is_said = False
        self._checked: set[tuple[str, str]] = set()

    def check(self, trial: str, *names: str) -> None:
        """Raise InputError if files of a trial are not what was written. What is missing is for its reader to say."""
        for name in names:
            path = files.trial_folder(self._run, trial) / name
            if (trial, name) in self._checked:
                continue
            if not path.is_file():
                if name == CACHED and any(name in hashes for hashes in self.seals.of(self._within + trial)):
                    raise InputError(f"{path}: no such file. {files.AGAIN}")
                continue
            if not self.versions(trial):
                self._say_it_has_none()
            digest = digest_of(path)
            if not self._is_among(digest, trial, name) and not self._is_among(digest, trial, name, anew=True):
                raise InputError(
                    f"{path}: is damaged or was edited: its SHA-256 is not the one in the study. "
                    f"{files.RECOMPUTED if name == CREDITED else files.AGAIN}"
                )
            self._checked.add((trial, name))

    def _is_among(self, digest: str, trial: str, name: str, anew: bool = False) -> bool:
        written = {hashes[name] for hashes in self.seals.of(self._within + trial, anew) if name in hashes}
        return not written or digest in written

    def _say_it_has_none(self) -> None:
        if not self._is_said and self.seals.is_reached:
            self._note(
                f"{self._run}: the study has no hashes of trials' files, since an earlier version began it or it was "
                "written anew; caches are checked by their own manifests"
            )
        self._is_said = True

    def forget(self, trial: str) -> None:
        """Check a trial's files anew when they are next read."""
        self._checked = {(of, name) for of, name in self._checked if of != trial}

    def trials(self) -> list[str]:
        """The trials that the study has hashes of."""
        names = [name.removeprefix(self._within) for name in self.seals.known() if name.startswith(self._within)]
        return sorted(name for name in names if name != _CONFIGURATION and "/" not in name)

    def versions(self, trial: str) -> int:
        """How many versions of a trial's files the study knows; several if copies of the run evaluated it."""
        return len(self.seals.of(self._within + trial))

    def seal(self, trial: str, result: str | None = None) -> None:
        """Add the hashes of a trial's files to the study. `result`: that of a result.json which comes to be written."""
        folder = files.trial_folder(self._run, trial)
        others = (files.RESULT, files.RECIPE, files.RESPONSES, CACHED, CREDITED)
        hashes = {name: digest_of(folder / name) for name in others if (folder / name).is_file()}
        self.seals.add(self._within + trial, hashes | ({} if result is None else {files.RESULT: result}))
        self.forget(trial)

    def check_configuration(self, content: Mapping[str, Any]) -> None:
        """Raise InputError naming the keys of config.yaml that were edited since it was written."""
        written, found = self.seals.of(self._within + _CONFIGURATION), digests_of(content)
        edited = [sorted(key for key in one if one[key] != found.get(key)) for one in written]
        if written and all(edited):
            raise InputError(
                f"{self._run / files.CONFIG}: was edited or damaged since it was written: "
                f"{', '.join(min(edited, key=len))}. Set this back, or restore the file from a copy of the run. For "
                "other settings, search in another folder (--out)"
            )

    def seal_configuration(self, content: Mapping[str, Any]) -> None:
        """Add the hashes of config.yaml to the study."""
        self.seals.add(self._within + _CONFIGURATION, digests_of(content))


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests_of(content: Mapping[str, Any]) -> Hashes:
    """Hashes of what config.yaml holds, by key, of sections by `section.key`."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, Mapping) else {name: value}
    family = flat.pop("resolved.family", None)
    if isinstance(family, Mapping):
        flat["resolved.family"] = {key: family.get(key) for key in _DEFINED}
    if isinstance(objectives := flat.get("study.objectives"), Mapping):
        flat["study.objectives"] = list(objectives.items())  # the first leads
    kept = {key: value for key, value in flat.items() if key not in _FREE and key.partition(".")[0] not in _FREE}
    return {key: hashlib.sha256(_canonical(value)).hexdigest()[:32] for key, value in kept.items()}


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
