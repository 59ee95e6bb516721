"""What of a run folder nobody needs, or not everybody: found, weighed, and removed."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nex_merge.activations.cache import rows_bytes
from nex_merge.atomic import abandoned
from nex_merge.errors import InputError
from nex_merge.runs import files
from nex_merge.runs.custody import remove_orders
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.recapture import mend_credits
from nex_merge.runs.room import drop_all_but, with_rows
from nex_merge.runs.run import RunFolder
from nex_merge.setup.paths import command
from nex_merge.wording import counted

_WHY = "nex-merge clean"


@dataclass(frozen=True)
class Part:
    """What can be removed together."""

    what: str
    size: int  # bytes
    cost: str  # what the user does without, or has to do, afterwards
    remove: Callable[[], None]


def parts_of(run: RunFolder, most: int, note: Callable[[str], None]) -> list[Part]:
    """What of a run can be removed, without what is not there. The caller holds the run's lock until it is removed.

    `most`: merges at the head of the leaderboard whose activations stay. `note` is told what had to be mended first.

    Raises InputError if the folder is that of a final, or its scores are computed from activations.
    """
    if run.finalists is not None:
        raise InputError(f"{run.path}: is the final of a run, and cleaned with it: {command('clean', run.path.parent)}")
    scoring, nex = run.scoring(), run.config.nex
    if (scoring.rho, scoring.min_run) != (nex.rho, nex.min_run):
        raise InputError(
            f"{run.path}: its scores are those under rho {scoring.rho:g} and min_run {scoring.min_run}, which are "
            f"computed from the activations. First go back to the run's own: {command('rescore', run.path)}"
        )
    final = run.path / files.FINAL
    stages = [run, *([run.within(final)] if (final / files.CONFIG).is_file() else [])]
    found = [_activations(run, stages, most, note), _unfinished(stages), _left_over(run.path)]
    return [part for part in found if part.size]


def _activations(run: RunFolder, stages: list[RunFolder], most: int, note: Callable[[str], None]) -> Part:
    ranked = [row.trial for row in read_rows(run) if row.kind == "merge" and row.rank is not None]
    leaders = {*ranked[:most]}
    going = {(stage, trial) for stage in stages for trial in with_rows(stage) if trial not in leaders}
    merges = {trial for _, trial in going}

    def remove() -> None:
        for stage in stages:
            mend_credits(stage, note)  # earlier versions kept none, and it is computed from the rows
            drop_all_but(stage, leaders, _WHY)

    return Part(
        f"activations of {counted(len(merges), 'merge')}",
        sum(rows_bytes(stage.folder(trial) / files.CACHE) for stage, trial in going),
        "the ranking stays as it is; phases of these merges, and rescoring under another --rho or --min-run, need them "
        f"captured again ({command('rescore', run.path, '--capture', 'all')}), which takes the models",
        remove,
    )


def _unfinished(stages: list[RunFolder]) -> Part:
    """Trials without a result; those that had one, which may come back from a copy of the run, are left."""
    folders = [stage.folder(trial) for stage in stages for trial in sorted(set(stage.begun()) - set(stage.lost()))]

    def remove() -> None:
        for folder in folders:
            shutil.rmtree(folder)

    return Part(
        f"what {counted(len(folders), 'interrupted trial')} left",
        sum(map(_bytes, folders)),
        "if the search goes on, a trial that was raced answers again what it had answered; others begin anew anyway",
        remove,
    )


def _left_over(folder: Path) -> Part:
    works = abandoned(folder)

    def remove() -> None:
        remove_orders(folder)
        for work in works:
            shutil.rmtree(work)

    orders = [path for path in (folder / files.ORDERS).glob("*.ranks*") if path.is_file()]
    size = sum(path.stat().st_size for path in orders) + sum(map(_bytes, works))
    return Part("sorted weights and half-written files of killed commands", size, "nobody reads them", remove)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def earlier_runs(run: Path) -> list[tuple[Path, int]]:
    """Runs that --fresh renamed, with their bytes."""
    found = [path for path in run.parent.glob(f"{run.name}.*") if path.name[len(run.name) + 1 :].isdecimal()]
    return [(path, _bytes(path)) for path in sorted(found) if (path / files.CONFIG).is_file()]
