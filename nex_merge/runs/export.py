"""Write a variant as a checkpoint, and prove that it holds the tensors that were scored and answers as it did."""

import re
from collections.abc import Iterator
from pathlib import Path

import torch

from nex_merge.atomic import new_folder
from nex_merge.checkpoints.exported import needs_transformers_5
from nex_merge.checkpoints.hub import CARD
from nex_merge.engines.saving import read_back, write_settings, write_weights
from nex_merge.errors import InputError, RunError
from nex_merge.measures.registry import CONSENSUS, NEX
from nex_merge.records import MergeRecipe, TrialResult
from nex_merge.runs.card import PUBLIC_RECIPE, figures, model_card, public_recipe, verdict_line
from nex_merge.runs.files import trial_name
from nex_merge.runs.leaderboard import best_merge, latest_results, read_rows, recommendation, shown_in
from nex_merge.runs.preferred import better_than, card_rows
from nex_merge.runs.proof import check_responses, checkpoint_digest, write_identity
from nex_merge.runs.recommend import better_members, of_last_stage, standing
from nex_merge.runs.remerge import Remerger
from nex_merge.runs.results import read_reliability
from nex_merge.runs.rounding import Rounded, round_weights
from nex_merge.runs.run import RunFolder
from nex_merge.setup.paths import check_new_folder, command

# How many stored responses an export is held against: a pass each, so that an export costs less than a trial.
CHECKED = 8
MAX_SHARD_SIZE = "5GB"
_DTYPES = ("bfloat16", "float16", "float32")
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def export_trial(
    run: RunFolder,
    trial: str | None,
    out: Path,
    by: str | None = None,
    dtype: str | None = None,
    max_shard_size: str = MAX_SHARD_SIZE,
) -> Iterator[str]:
    """Export a trial (unless named, the best merge by `by`, else what is recommended); what was done, line by line.

    `dtype`: what weights are stored in; None: what was scored. In another one they are rounded, once all is proved of
    those that were scored. `max_shard_size`: of a file of weights, such as 5GB.

    `out` appears whole, by rename, only once everything is checked. Raises InputError where there is nothing to export
    or `out` is in use, RunError where the checkpoint would not be the variant that was scored.
    """
    if trial is not None and by is not None:
        raise InputError("export: expected either --trial or --by, got both")
    if dtype not in (None, *_DTYPES):
        raise InputError(f"dtype: expected {', '.join(_DTYPES[:-1])} or {_DTYPES[-1]}, got {dtype!r}")
    shard_bytes = size_in_bytes(max_shard_size, "--max-shard-size")
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
    resident = remerger.resident
    target = dtype or resident.out_dtype
    # Files are as large as they are asked to be once they are rounded.
    shard_bytes = shard_bytes * resident.stored_dtype.itemsize // getattr(torch, target).itemsize
    with new_folder(out) as folder:
        write_weights(resident, folder, max(shard_bytes, 1))
        notes = write_settings(resident, recipe, folder, getattr(torch, target))
        written = checkpoint_digest(folder)
        if written != result.weights_sha256:
            raise RunError(
                f"{folder}: its tensors (SHA-256 {written[:16]}) are not those that were scored; the folder is kept "
                "for inspection"
            )
        yield f"{out}: read back from disk, every tensor equal to the merged one, bit for bit"
        yield _check_answers(remerger, result, folder, out)
        rounded = None if target == resident.out_dtype else round_weights(folder, resident.out_dtype, target)
        if rounded is not None:
            read_back(resident, folder)
            yield f"{out}: stored in {rounded.said}; read back from disk, bit for bit; transformers loads it"
        _describe(remerger, shown, recipe, folder, name, stage is not run, rounded)
        needs = needs_transformers_5(folder)
        yield from (f"note: {note}" for note in notes)
    value, where = shown.value(name), " in the final" if stage is not run else ""
    done = f"done: {out}" + ("" if value is None else f" ({name} {value:.4f}{where})")
    yield done + (f"; needs transformers 5 or newer: {'; '.join(needs)}" if needs else "")


def size_in_bytes(text: str, source: str) -> int:
    """A size such as 5GB or 500MB, in bytes. Raises InputError, beginning with `source`, for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]B)", text.strip().upper(), re.ASCII)
    if found is None or (size := int(float(found[1]) * _UNITS[found[2]])) < 1:
        raise InputError(f"{source}: expected a size such as 5GB or 500MB, got {text!r}")
    return size


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
        first = f"so that it doesn't recommend {trial_name(trial)}, the first by it"
        yield f"note: the verdict on {by} is insufficient, {first}: {'; '.join(verdict.reasons)}"
    for other in better_than(run.path, trial):
        yield f"note: compared blind, {trial_name(other)} is better than {trial_name(trial)}"
    rows = of_last_stage(read_rows(run))
    pick = next((row for row in rows if row.trial == trial and row.value(by) is not None), None)
    if pick is not None and (names := better_members(rows, pick, by, run.objective.sign_of(by))):
        better = f"{names[0]} ranks" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} rank"
        yield f"note: {better} above {trial_name(trial)}, the best merge; see: {command('leaderboard', run.path)}"


def _describe(
    remerger: Remerger,
    result: TrialResult,
    recipe: MergeRecipe,
    folder: Path,
    name: str,
    in_final: bool,
    rounded: Rounded | None,
) -> None:
    """The files that say what a checkpoint is: recipe, card, identity.

    `name`: the measure it was chosen by. `in_final`: whether the result is from a final.
    """
    resident, run = remerger.resident, remerger.run.path
    public = public_recipe(resident.family, recipe, rounded is not None)
    (folder / PUBLIC_RECIPE).write_text(public, encoding="utf-8")
    scored = {"weights_sha256": result.weights_sha256}
    if rounded is not None:
        scored = {"weights_sha256": rounded.sha256, "rounded_from_sha256": result.weights_sha256}
    write_identity(folder, {**scored, "trial": result.trial, "run": run.name})
    reliability = read_reliability(run)
    stage = ["| prompts | those of the final, which the search had not seen |"] if in_final else []
    verdicts = {} if reliability is None else reliability.verdicts
    lines = [
        *stage,
        *figures(result),
        verdict_line(name, verdicts.get(name), standing(recommendation(remerger.run), result.trial)),
        *(
            verdict_line(other, verdicts.get(other))
            for other in (CONSENSUS.name, NEX.name)
            if other != name and result.value(other) is not None
        ),
        *card_rows(run, result.trial),
    ]
    about, needs = f"Trial {result.trial} of a search", needs_transformers_5(folder)
    card = model_card(resident, recipe, about, lines, result.weights_sha256, needs, rounded)
    (folder / CARD).write_text(card, encoding="utf-8")


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
