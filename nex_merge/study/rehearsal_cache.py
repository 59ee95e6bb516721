"""What a rehearsal found, kept by everything that it depends on, so that the same files are rehearsed once."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nex_merge.engines.contracts import Engine
from nex_merge.engines.family import FamilyResident
from nex_merge.records import SearchSpace
from nex_merge.runs import files
from nex_merge.setup.cache import cache_folder
from nex_merge.setup.resolve import ResolvedConfig

# Raised where a rehearsal shows more than those before it.
_SHOWN = 2


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal found: lines for the user, and what it took."""

    notes: tuple[str, ...]
    seconds: float
    logits_off: float  # largest difference between a resident member and its checkpoint in transformers
    known: bool = False  # an earlier rehearsal of the same files

    def summary(self) -> str:
        """One line that says what was shown."""
        took = "shown before for the same files" if self.known else f"{self.seconds:.1f} s"
        return (
            f"every member gives the logits of its own checkpoint (largest difference {self.logits_off:.1g}), every "
            f"method merges, and an export reads back ({took})"
        )


def place_of(
    engine: Engine, resident: FamilyResident, resolved: ResolvedConfig, space: SearchSpace, decoded: int
) -> Path | None:
    """The file that keeps the result for exactly these inputs; None where this user has no cache folder."""
    given = {
        "engine": engine.identity(),
        "members": resolved.resolved["checkpoints"],
        "settings": resolved.resolved["settings"],
        "donor": [resident.family.donor, resident.family.donor_named],
        "dtypes": [str(resident.dtype), resident.out_dtype],
        "device": str(resident.device),
        "prompts": [resolved.resolved["prompts_sha256"], resolved.config.prompts.model_dump()],
        "decoded": min(decoded, resolved.config.generation.max_new_tokens),
        "space": str(space),
        "recipes": str(resolved.resolved.get("recipes")),
        "shown": _SHOWN,
        "versions": resolved.resolved["versions"],
    }
    folder = cache_folder()
    key = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
    return None if folder is None else folder / "rehearsals" / f"{key[:32]}.json"


def read(place: Path | None) -> Rehearsal | None:
    """What is kept there; None if nothing is, or it can't be read."""
    if place is None or not place.is_file():
        return None
    try:
        data: Mapping[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        return Rehearsal(**{**data, "notes": tuple(data["notes"]), "known": True})
    except (OSError, ValueError, TypeError, KeyError):
        return None  # rehearsed again


def keep(place: Path | None, done: Rehearsal) -> None:
    """Keep what a rehearsal found."""
    if place is None:
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(place, json.dumps(asdict(done)))
    except OSError:
        pass  # a full or read-only cache costs a rehearsal, not the search
