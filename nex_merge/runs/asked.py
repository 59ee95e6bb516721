"""What a run asks: the token ids of its prompts, fixed when it is begun, and the time that its templates were told."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from nex_merge.errors import InputError
from nex_merge.runs import files
from nex_merge.wording import counted


@dataclass(frozen=True)
class Asked:
    """The prompts of a run as its models read them."""

    ids: Sequence[Sequence[int]]
    clock: datetime  # the local time at which chat templates rendered them


def read_asked(run: Path) -> Asked | None:
    """What a run asks, as it is kept in its folder; None where nothing is, as in runs of earlier versions.

    Raises InputError if the file is damaged.
    """
    path = run / files.PROMPTS
    if not path.is_file() or not has_trials(run):
        return None
    try:
        item = json.loads(files.read_utf8(path))
        clock = datetime.fromisoformat(item["rendered_at"])
        return Asked([[int(token) for token in ids] for ids in item["ids"]], clock)
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
    head = f'"schema": 1,\n "rendered_at": {json.dumps(asked.clock.isoformat())}'
    files.write_atomically(run / files.PROMPTS, f'{{{head},\n "ids": [\n  {lines}\n ]}}\n')


def as_begun(run: Path, rendered: Asked, kept: Asked | None) -> tuple[Asked, list[str]]:
    """What a run asks where `rendered` is how its prompts are rendered now, and what is to be said of a difference.

    `kept`: see `read_asked`. A run of an earlier version asks what its base, or another variant, has answered.
    """
    if kept is None:
        answered = _answered(run)
        ids = [answered.get(number, list(now)) for number, now in enumerate(rendered.ids)]
        return Asked(ids, rendered.clock), _said(rendered.ids, ids, f"{run}: the responses of this run")
    if len(kept.ids) != len(rendered.ids):
        raise InputError(
            f"{run / files.PROMPTS}: expected {counted(len(rendered.ids), 'prompt')}, got {len(kept.ids)}: it is not "
            "the file that the run was begun with. Restore it from a copy of the run"
        )
    return kept, _said(rendered.ids, kept.ids, str(run / files.PROMPTS))


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


def has_trials(run: Path) -> bool:
    """Whether anything in a folder was asked already."""
    return (run / files.TRIALS).exists() or (run / files.STUDY).exists()
