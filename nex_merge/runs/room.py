"""Room on the disk: the activations of merges, row by row, are dropped but for those of the merges that lead."""

from nex_merge.activations.cache import drop_rows
from nex_merge.records import TrialResult
from nex_merge.runs import files
from nex_merge.runs.leaderboard import rank
from nex_merge.runs.run import RunFolder


def make_room(run: RunFolder) -> None:
    """Drop the rows of merges that `activations.keep` does not keep. Does nothing a second time.

    To be called whenever a merge's result was kept. A run of a final keeps those of its own ranking.
    """
    most = run.config.activations.kept_merges
    if most is not None:
        drop_all_but(run, _leaders(run, most), f"activations.keep: {run.config.activations.keep}")


def with_rows(run: RunFolder) -> list[str]:
    """The finished merges that have rows, those of failed ones included."""
    merges = [result.trial for result in run.results() if result.kind == "merge"]
    return [trial for trial in merges if (run.folder(trial) / files.CACHE / "rows").is_dir()]


def drop_all_but(run: RunFolder, leaders: set[str], why: str) -> None:
    """Drop the rows of all merges but some. `why` is what messages say of those whose rows are missing."""
    for trial in with_rows(run):
        if trial not in leaders:
            drop_rows(run.folder(trial) / files.CACHE, why)


def _leaders(run: RunFolder, most: int) -> set[str]:
    """The merges that keep their rows: each, in order of number, competes with those that those before it left.

    They are ranked as in a leaderboard, by the values that they had when they were told: these never change, so that
    it does not matter how often, and when, this is asked.
    """
    kept: list[TrialResult] = []
    for result in run.results():
        if result.kind == "merge" and result.state in files.SCORED and result.score is not None and run.ranks(result):
            leading = {row.trial for row in rank([*kept, result], run.objective)[:most]}
            kept = [one for one in (*kept, result) if one.trial in leading]
    return {result.trial for result in kept}
