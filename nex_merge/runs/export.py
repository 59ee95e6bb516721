"""Write a variant as a checkpoint, and prove that it holds the tensors that were scored and answers as it did."""

from collections.abc import Iterator
from pathlib import Path

import torch

from nex_merge.atomic import new_folder
from nex_merge.checkpoints.exported import needs_transformers_5
from nex_merge.engines.saving import write_settings, write_weights
from nex_merge.errors import InputError, RunError
from nex_merge.measures.registry import MEASURES
from nex_merge.records import MergeRecipe, TrialResult
from nex_merge.runs.card import PUBLIC_RECIPE, figures, model_card, public_recipe, verdict_line
from nex_merge.runs.files import trial_name
from nex_merge.runs.leaderboard import best_merge, latest_results, read_rows, recommendation, shown_in
from nex_merge.runs.preferred import better_than, card_rows
from nex_merge.runs.proof import check_responses, checkpoint_digest, write_identity
from nex_merge.runs.recommend import better_members, of_last_stage, standing
from nex_merge.runs.remerge import Remerger
from nex_merge.runs.results import read_reliability
from nex_merge.runs.run import RunFolder
from nex_merge.setup.paths import check_new_folder, command

# How many stored responses an export is held against: a pass each, so that an export costs less than a trial.
CHECKED = 8


def export_trial(run: RunFolder, trial: str | None, out: Path, by: str | None = None) -> Iterator[str]:
    """Export a trial (unless named, the best merge by `by`, else what is recommended); what was done, line by line.

    `out` appears whole, by rename, only once everything is checked. Raises InputError where there is nothing to export
    or `out` is in use, RunError where the checkpoint would not be the variant that was scored.
    """
    if trial is not None and by is not None:
        raise InputError("export: expected either --trial or --by, got both")
    check_new_folder(out, "--out")
    result = best_merge(run, by) if trial is None else _exportable(run, trial)
    found = recommendation(run)
    is_recommended = found.row is not None and found.row.trial == result.trial
    name = by or (found.by if is_recommended else run.objective.name)
    if trial is None:
        yield from _doubts(run, result.trial, name)
    if trial is None and name != (by or run.objective.name):
        about = standing(found, result.trial)
        yield f"note: {trial_name(result.trial)}: {about}; --by {run.objective.name} exports the objective's first"
    # The figures shown are those of the leaderboard, which may have been rescored since, or come from a final.
    stage = shown_in(run, result.trial)
    shown = next(item for item in latest_results(stage) if item.trial == result.trial)
    remerger = Remerger(run)
    recipe = remerger.load(result)
    sha256 = str(result.weights_sha256)[:16]
    yield f"{trial_name(result.trial)}: merged again, the same tensors as scored (SHA-256 {sha256})"
    with new_folder(out) as folder:
        notes = _write(remerger, shown, recipe, folder, name, stage is not run)
        written = checkpoint_digest(folder)
        if written != result.weights_sha256:
            raise RunError(
                f"{folder}: its tensors (SHA-256 {written[:16]}) are not those that were scored; the folder is kept "
                "for inspection"
            )
        yield f"{out}: read back from disk, every tensor equal to the merged one, bit for bit"
        yield _check_answers(remerger, result, folder, out)
        needs = needs_transformers_5(folder)
        yield from (f"note: {note}" for note in notes)
    value, where = shown.value(name), " in the final" if stage is not run else ""
    done = f"done: {out}" + ("" if value is None else f" ({name} {value:.4f}{where})")
    yield done + (f"; needs transformers 5 or newer: {'; '.join(needs)}" if needs else "")


def _exportable(run: RunFolder, trial: str) -> TrialResult:
    """The trial asked for. Raises InputError where it failed."""
    result = run.find(trial)
    if result.state == "failed":
        raise InputError(f"{trial_name(result.trial)} failed ({result.reason}); there is nothing to export")
    return result


def _doubts(run: RunFolder, trial: str, by: str) -> Iterator[str]:
    """What speaks against the best merge by a measure: an insufficient verdict, a comparison, a better member."""
    reliability = read_reliability(run.path)
    verdict = None if reliability is None else reliability.of(by)
    if verdict is not None and verdict.level == "insufficient":
        yield f"note: the verdict on {by} is insufficient: {'; '.join(verdict.reasons)}"
    for other in better_than(run.path, trial):
        yield f"note: compared blind, {trial_name(other)} is better than {trial_name(trial)}"
    rows = of_last_stage(read_rows(run))
    sign = run.objective.sign if by == run.objective.name else MEASURES[by].direction
    pick = next((row for row in rows if row.trial == trial and row.value(by) is not None), None)
    if pick is not None and (names := better_members(rows, pick, by, sign)):
        better = f"{names[0]} ranks" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} rank"
        yield f"note: {better} above {trial_name(trial)}, the best merge; see: {command('leaderboard', run.path)}"


def _write(
    remerger: Remerger, result: TrialResult, recipe: MergeRecipe, folder: Path, name: str, in_final: bool
) -> list[str]:
    """The checkpoint's files. `name`: the measure it was chosen by. `in_final`: whether the result is from a final.

    Returns what is worth a note.
    """
    resident = remerger.resident
    write_weights(resident, folder)
    notes = write_settings(resident, recipe, folder)
    (folder / PUBLIC_RECIPE).write_text(public_recipe(resident.family, recipe), encoding="utf-8")
    identity = {"weights_sha256": result.weights_sha256, "trial": result.trial, "run": remerger.run.path.name}
    write_identity(folder, identity)
    reliability = read_reliability(remerger.run.path)
    stage = ["| prompts | those of the final, which the search had not seen |"] if in_final else []
    verdict = None if reliability is None else reliability.of(name)
    lines = [
        *stage,
        *figures(result),
        verdict_line(name, verdict, standing(recommendation(remerger.run), result.trial)),
        *card_rows(remerger.run.path, result.trial),
    ]
    about, needs = f"Trial {result.trial} of a search", needs_transformers_5(folder)
    card = model_card(resident, recipe, about, lines, result.weights_sha256, needs)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return notes


def _check_answers(remerger: Remerger, result: TrialResult, folder: Path, out: Path) -> str:
    """Hold the checkpoint against the responses stored when the trial was scored.

    Greedy responses in float32 have to be the same. Others depend on sampling noise, or, in half precision, on rounding
    between tokens that are nearly tied.
    """
    resident, run, scored = remerger.resident, remerger.run, result.same_as or result.trial
    exact = resident.dtype == torch.float32 and remerger.config.generation.temperature == 0
    recorded = None if exact else run.logprobs(scored)[:CHECKED]
    found = check_responses(folder, resident, run.responses(scored)[:CHECKED], recorded)
    return f"{out}: transformers loads it, and {found}"
