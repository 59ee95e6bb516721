"""A run's scores under any calibration, from its folder alone, without loading a model."""

from nex_merge.measures.estimates import score_pool
from nex_merge.measures.measure import Pool
from nex_merge.runs import files
from nex_merge.runs.leaderboard import LEADERBOARD_FILES, write_leaderboard
from nex_merge.runs.results import Scores, write_scores
from nex_merge.runs.rows import Row
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import NexConfig


def rescore_run(run: RunFolder, nex: NexConfig) -> list[Row]:
    """Score the run's variants by every measure under `nex` and replace its leaderboard; earlier ones are kept.

    Raises InputError if the calibration takes its weights from base and parents, and they were not scored.
    """
    scoring = score_pool(Pool(run.variants(nex), run.rules(nex)), run.objective)
    scores = Scores(nex.calibration, nex.rho, nex.min_run, scoring.scores, scoring.estimates)
    write_scores(run.path, scores, scoring.reliability)
    if (final := run.final) is not None:
        # The verdict is on the ranking that leads.
        rescore_run(final, nex)
        verdict = (final.path / files.RELIABILITY).read_text(encoding="utf-8")
        files.write_atomically(run.path / files.RELIABILITY, verdict)
    rows = write_leaderboard(run)
    kept = run.path / files.LEADERBOARDS / f"{nex.calibration}-rho{nex.rho:g}-min_run{nex.min_run}"
    for name in (files.SCORES, files.RELIABILITY, *LEADERBOARD_FILES):
        files.write_atomically(kept / name, (run.path / name).read_text(encoding="utf-8"))
    return rows
