"""What a run asks, fixed when it is begun: token ids of prompts, when they were rendered, and of what models."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from nex_merge.errors import InputError
from nex_merge.runs import files
from nex_merge.wording import counted

# The dtype in which answers do not depend on the kind of device; see `generation`.
EXACT = "float32"


@dataclass(frozen=True)
class Asked:
    """The prompts of a run as its models read them."""

    ids: Sequence[Sequence[int]]
    clock: datetime  # the local time at which chat templates rendered them
    computing: str | None = None  # what models compute in and on; None: not known, as in runs of earlier versions


def read_asked(run: Path) -> Asked | None:
    """What a run asks, as it is kept in its folder; None where nothing is, as in runs of earlier versions.

    What a search has left that ended before its first trial is nothing: it may have been begun with other prompts.

    Raises InputError if the file is damaged.
    """
    path = run / files.PROMPTS
    if not path.is_file() or not files.has_trials(run):
        return None
    try:
        item = json.loads(files.read_utf8(path))
        clock = datetime.fromisoformat(item["rendered_at"])
        computing = item.get("computing")
        ids = [[int(token) for token in ids] for ids in item["ids"]]
        return Asked(ids, clock, None if computing is None else str(computing))
    except (InputError, KeyError, TypeError, ValueError, RecursionError):
        raise InputError(
            f"{path}: is damaged. Restore it from a copy of the run, or remove it: the prompts are then those that "
            "base has answered"
        ) from None


def keep_asked(run: Path, asked: Asked) -> None:
    """Keep what a run asks, unless that is kept already; later, nothing changes it."""
    if read_asked(run) is not None:
        return
    lines = ",\n  ".join(json.dumps(list(ids)) for ids in asked.ids)
    head = (
        f'"schema": 1,\n "rendered_at": {json.dumps(asked.clock.isoformat())},\n '
        f'"computing": {json.dumps(asked.computing)}'
    )
    files.write_atomically(run / files.PROMPTS, f'{{{head},\n "ids": [\n  {lines}\n ]}}\n')


def as_begun(run: Path, rendered: Asked, kept: Asked | None) -> tuple[Asked, list[str]]:
    """What a run asks where `rendered` is how its prompts are rendered now, and what is to be said of a difference.

    `kept`: see `read_asked`. A run of an earlier version asks what its base, or another variant, has answered. Raises
    InputError if models would answer in another precision than before, or with its rounding.
    """
    if kept is None:
        answered = _answered(run)
        ids = [answered.get(number, list(now)) for number, now in enumerate(rendered.ids)]
        return replace(rendered, ids=ids), _said(rendered.ids, ids, f"{run}: the responses of this run")
    if len(kept.ids) != len(rendered.ids):
        raise InputError(
            f"{run / files.PROMPTS}: expected {counted(len(rendered.ids), 'prompt')}, got {len(kept.ids)}: it is not "
            "the file that the run was begun with. Restore it from a copy of the run"
        )
    notes = _said(rendered.ids, kept.ids, str(run / files.PROMPTS))
    return kept, [*notes, *_computed(run, rendered.computing, kept.computing)]


def _computed(run: Path, now: str | None, begun: str | None) -> list[str]:
    if now is None or begun is None or now == begun:
        return []
    differing = f"{run}: begun with models that compute in {begun}, and they would now compute in {now}"
    if {now.split()[0], begun.split()[0]} != {EXACT}:
        raise InputError(
            f"runtime: {differing}, which gives other answers. Go on with it where it was begun, or use another folder "
            "(--out); where a device has both, runtime.device and runtime.dtype choose"
        )
    return [f"{differing}. Answers do not depend on that; activations agree up to rounding"]


def _said(now: Sequence[Sequence[int]], begun: Sequence[Sequence[int]], where: str) -> list[str]:
    others = sum(list(one) != list(other) for one, other in zip(now, begun, strict=True))
    if not others:
        return []
    return [
        f"{where}: {counted(others, 'prompt')} of {len(now)} would be rendered otherwise today; all trials of this run "
        "are asked what the first ones were"
    ]


def _answered(run: Path) -> dict[int, list[int]]:
    """The token ids of the prompts that the variants of a run have answered."""
    found: dict[int, list[int]] = {}
    for path in sorted((run / files.TRIALS).glob(f"*/{files.RESPONSES}"), key=lambda path: path.parent.name != "base"):
        try:
            for response in files.read_responses(path.parent):
                found.setdefault(response.prompt, list(response.prompt_ids))
        except InputError:  # said, and evaluated again, by the search
            continue
        break
    return found
