"""The trials of another run that a search begins with, kept in its own folder so that the other is needed once."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError
from nex_merge.measures.constraints import Constraint, violations
from nex_merge.measures.estimates import Objective
from nex_merge.measures.guard import COLLAPSE
from nex_merge.records import TrialResult
from nex_merge.runs import files
from nex_merge.runs.changes import differences
from nex_merge.runs.leaderboard import latest_results
from nex_merge.runs.run import RunFolder
from nex_merge.setup.paths import command
from nex_merge.setup.resolve import ResolvedConfig
from nex_merge.wording import counted


@dataclass(frozen=True)
class EarlierTrial:
    """What a sampler is told of a merge of another run."""

    parameters: Mapping[str, Any]  # by name in the study
    values: Sequence[float]  # the objectives, in that run's leaderboard as it was read
    violations: Mapping[str, float]  # by constraint, under this run's bounds; above 0: violated


@dataclass(frozen=True)
class WarmStart:
    """The earlier trials, and what to say of them."""

    trials: tuple[EarlierTrial, ...]
    note: str


def find_warm_start(
    resolved: ResolvedConfig, objective: Objective, constraints: Sequence[Constraint], fresh: bool
) -> WarmStart | None:
    """The trials that a search begins with: as kept in its run folder once it has begun, else those of the other run.

    None without `study.warm_start`. Raises InputError where they can't be used.
    """
    study, kept = resolved.config.study, resolved.run / files.WARM_START
    if study.warm_start is None:
        return None
    if study.recipes is not None:
        raise InputError("study.warm_start: expected none with study.recipes, a fixed list; remove one of them")
    if study.sampler != "tpe":
        raise InputError(
            f"study.warm_start: expected study.sampler: tpe, got {study.sampler}, which doesn't look at other trials; "
            "remove one of them"
        )
    is_begun = files.has_trials(resolved.run)
    if fresh or not is_begun:
        return _trials_of(RunFolder(Path(study.warm_start)), resolved, objective, constraints)
    if not kept.is_file():
        raise InputError(
            f"{kept}: no such file; it has the trials that this search began with. Restore it from a copy of the run, "
            "search in another folder (--out), or start over with --fresh (the folder is renamed)"
        )
    try:
        item = files.read_json(kept)
        return WarmStart(tuple(EarlierTrial(**trial) for trial in item["trials"]), item["note"])
    except (TypeError, KeyError) as error:
        raise InputError(f"{kept}: is damaged ({error}). Restore it from a copy of the run") from None


def keep_warm_start(run: Path, found: WarmStart) -> None:
    """Write the trials to the run folder, from which a resumed search reads them."""
    files.write_atomically(run / files.WARM_START, json.dumps(dataclasses.asdict(found), indent=1))


def _trials_of(
    run: RunFolder, resolved: ResolvedConfig, objective: Objective, constraints: Sequence[Constraint]
) -> WarmStart:
    if lines := list(_obstacles(run, resolved, objective)):
        raise InputError(
            f"study.warm_start: {run.path} is a search of something else:\n  " + "\n  ".join(lines)
            + "\nSearch the same space with the same models and objective, or leave out study.warm_start"
        )  # fmt: skip
    found = [result for result in latest_results(run) if result.kind == "merge" and result.estimates]
    if lacking := [each.measure for each in constraints if any(each.measure not in r.estimates for r in found)]:
        raise InputError(
            f"study.warm_start: {run.path}: an older version did not value {' and '.join(lacking)}, which "
            f"study.constraints bounds. Value it: {command('rescore', run.path)}"
        )
    trials = tuple(
        EarlierTrial(dict(result.parameters), values, _violations(result, constraints))
        for result in found
        if (values := objective.values(result)) is not None
    )
    if not trials:
        raise InputError(
            f"study.warm_start: {run.path}: expected finished merges with a value of {' and '.join(objective.names)}, "
            "got none; wait for them, or leave out study.warm_start"
        )
    others = _other_conditions(run, resolved)
    from_others = f"; their values come from other {' and '.join(others)}" if others else ""
    return WarmStart(
        trials,
        f"study.warm_start: the sampler begins with {counted(len(trials), 'merge')} of {run.path}{from_others}. "
        f"They are not in "
        "the leaderboard",
    )


def _violations(result: TrialResult, constraints: Sequence[Constraint]) -> dict[str, float]:
    """How far a merge of the other run is beyond the constraints of this one, and whether it collapsed there."""
    collapsed = result.violations.get(COLLAPSE, result.violation)  # of older versions, the greatest violation
    beyond, _ = violations(constraints, result.estimates)
    return beyond if collapsed is None else {COLLAPSE: collapsed, **beyond}


def _obstacles(run: RunFolder, resolved: ResolvedConfig, objective: Objective) -> Iterator[str]:
    """What makes trials of another run useless here, a line each."""
    was, now = run.resolved, resolved.resolved
    space = "search_space"
    for key, there, here in differences({space: was.get(space)}, {space: now[space]}):
        yield f"{'.'.join(key)}: is {there!r} there, {here!r} here"
    members = [list(item.get("checkpoints", {})) for item in (was, now)]
    if members[0] != members[1]:
        yield f"models: are {', '.join(members[0])} there, {', '.join(members[1])} here"
    else:
        for key, _, _ in differences(was["checkpoints"], now["checkpoints"]):
            yield f"models: the weights of {key[0]} are others"
    if run.objective != objective:
        directions = {1: "maximize", -1: "minimize"}
        there, here = (
            " and ".join(f"{directions[one.sign]} {one.name}" for one in item.all)
            for item in (run.objective, objective)
        )
        yield f"study.objective: is to {there} there, {here} here"


def _other_conditions(run: RunFolder, resolved: ResolvedConfig) -> list[str]:
    """Under which other conditions values were found there: they still guide, and are no values of this run."""
    there, here = run.config, resolved.config
    same_file = run.resolved.get("prompts_sha256") == resolved.resolved["prompts_sha256"]
    # A final keeps some prompts from the search, drawn by the study's seed.
    kept = [(item.study.final, item.study.final and item.study.seed) for item in (there, here)]
    prompts = [item.prompts.model_dump(exclude={"file"}) for item in (there, here)]
    pairs = {
        "prompts": (same_file, prompts[0] == prompts[1], kept[0] == kept[1]),
        "settings of generation": (there.generation == here.generation,),
        "settings of activations": (there.activations == here.activations,),
        "settings of NEX": (run.scoring() == here.nex,),
        "settings of consensus": (there.consensus == here.consensus,),
    }
    return [name for name, equal in pairs.items() if not all(equal)]
