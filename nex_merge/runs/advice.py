"""A leaderboard in sentences: the pick, what speaks for it, the verdicts, and what to do next with its command."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nex_merge.measures.estimates import Objective
from nex_merge.measures.nex_verdict import UNCAPTURED
from nex_merge.measures.registry import MEASURES, SUPPORTING, measure_title
from nex_merge.records import Action, Advice, Reliability, Verdict
from nex_merge.runs import files
from nex_merge.runs.files import trial_label, trial_name
from nex_merge.runs.front import first_front
from nex_merge.runs.odds import better, odds
from nex_merge.runs.preferred import better_than, compare_steps
from nex_merge.runs.recommend import (
    NO_VERDICT,
    Recommendation,
    best_by,
    candidates,
    of_last_stage,
    recommend,
)
from nex_merge.runs.rows import Row
from nex_merge.setup.paths import command
from nex_merge.wording import counted, decimal, listed

MOST = 12  # trials of a front that a sentence names
MEANING = {
    "sound": "other prompts would give much the same ranking",
    "weak": "this ranking is coarse",
    "insufficient": "this ranking supports no choice",
}


def lead(rows: Sequence[Row], objective: Objective, reliability: Reliability | None) -> Iterator[str]:
    """The result, in a few lines above the table: what is recommended, then, if that is another, the objective's first.

    With several objectives, the merges of the first front take the place of the objective's first.
    """
    found, rows = recommend(rows, objective, reliability), of_last_stage(rows)
    if found.row is None:
        yield f"Nothing is recommended{' yet' if found.why == NO_VERDICT else ''}: {found.why}."
    elif not found.of_front:
        yield f"Recommended: {_told(found.row, found.by, found.level)}"
    if objective.others:
        yield from _front(rows, objective, reliability, found.of_front)
        return
    first = best_by(rows, objective.name, objective.sign)
    if found.row is not None and found.by != objective.name:
        yield from _beside(rows, found.row, found.by)
    if first is None:
        return
    if found.row is None or found.by != objective.name:
        level = _level(None if reliability is None else reliability.of(objective.name))
        trial = f"trial {trial_label(first.trial)}"
        yield f"First by {measure_title(objective.name)}{level}: {trial}, {_estimate(first, objective.name)}"
    yield from _first(rows, first, objective, reliability)


def _told(row: Row, by: str, level: str | None) -> str:
    judged = "" if level is None else f" ({level})"
    return f"trial {trial_label(row.trial)}, by {measure_title(by)}{judged}: {_estimate(row, by)}"


def _beside(rows: Sequence[Row], pick: Row, by: str) -> Iterator[str]:
    """The references by the measure that a merge is recommended by, if not the objective."""
    equal = [row for row in rows if row.reference and row.trial != pick.trial]
    members = [row for row in rows if row.kind != "merge" and row.value(by) is not None]
    best = max(members, key=lambda row: MEASURES[by].direction * row.known(by), default=None)
    told = [f"equal weights (trial {trial_label(row.trial)}) {_number(row, by)}" for row in equal]
    told += [] if best is None else [f"the best of base and parents ({best.trial}) {_number(best, by)}"]
    told = ["it is the merge with equal weights", *told] if pick.reference else told
    if told:
        yield f"  By {measure_title(by)}: {', '.join(told)}."
    if told := [item for item in odds(pick, by) if item.startswith("confidence")]:
        yield f"  {_capital(told[0])}."
    yield from better(pick, by)


def _first(rows: Sequence[Row], first: Row, objective: Objective, reliability: Reliability | None) -> Iterator[str]:
    """What speaks for and against the first merge by the objective."""
    parts = [*odds(first, objective.name), *_supporters(rows, first, objective, reliability)]
    if parts:
        yield f"  {_capital('; '.join(parts))}."
    yield from better(first, objective.name)
    above = [r for r in rows if r.rank and r.kind != "merge" and r.rank < (first.rank or 0)]
    if above:
        names = ", ".join(f"{row.trial} {_number(row, objective.name)}" for row in above)
        yield f"  Above it: {names}. By {measure_title(objective.name)}, no merge is better."
    recommended = recommend(rows, objective, reliability)
    for name, other in _dissenters(rows, first, objective, reliability):
        if recommended.row is None or name != recommended.by:
            trial = trial_label(other.trial)
            yield f"  {measure_title(name)} is sound and disagrees: trial {trial}, {_estimate(other, name)}"


def _front(
    rows: Sequence[Row], objective: Objective, reliability: Reliability | None, recommended: bool
) -> Iterator[str]:
    """The merges of the first front, the best of them by each objective, and who else would be on it."""
    front = first_front(rows)
    if not front:
        return
    by = " and ".join(measure_title(name) for name in objective.names)
    yield f"{'Recommended: one of the front' if recommended else 'Front'} by {by}: {_trials(front)}."
    for one in objective.all:
        best, verdict = best_by(front, one.name, one.sign), None if reliability is None else reliability.of(one.name)
        if best is not None:
            trial = f"trial {trial_label(best.trial)}"
            yield f"  Best {measure_title(one.name)}{_level(verdict)}: {trial}, {_estimate(best, one.name)}"
    above = [row.trial for row in rows if row.kind != "merge" and row.front == 1]
    if above:
        yield f"  No merge is better than {' or '.join(above)} in one objective without being worse in another."


def _trials(front: Sequence[Row]) -> str:
    """Trials in a sentence; of many, the first twelve."""
    names = [trial_label(row.trial) for row in front]
    if len(names) == 1:
        return f"trial {names[0]}"
    if len(names) > MOST:
        return f"trials {listed(names, MOST)}"
    return f"trials {', '.join(names[:-1])} and {names[-1]}"


def _level(verdict: Verdict | None) -> str:
    return "" if verdict is None else f" ({verdict.level})"


def _number(row: Row, name: str) -> str:
    return decimal(row.value(name), f".{MEASURES[name].digits}f")


def _estimate(row: Row, name: str) -> str:
    (low, high), digits = row.interval(name), MEASURES[name].digits
    interval = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return _number(row, name) + interval


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _supporters(rows: Sequence[Row], pick: Row, objective: Objective, reliability: Reliability | None) -> list[str]:
    """The other measures that put the pick above every parent and equal weights."""
    if reliability is None:
        return []
    references = [r for r in rows if (r.kind == "parent" or r.reference) and r.trial != pick.trial]
    found = []
    for measure in SUPPORTING:
        name = measure.name
        verdict, value = reliability.of(name), pick.value(name)
        if name == objective.name or value is None or verdict is None or verdict.level == "insufficient":
            continue
        others = [other for row in references if (other := row.value(name)) is not None]
        if others and all(measure.direction * (value - other) > 0 for other in others):
            found.append(f"{measure_title(name)} ({verdict.level})")
    return [
        f"supported by {', '.join(found)}" if found else "no other measure puts it above every parent and equal weights"
    ]


def _dissenters(
    rows: Sequence[Row], pick: Row, objective: Objective, reliability: Reliability | None
) -> Iterator[tuple[str, Row]]:
    """Measures of accuracy that are sound and would pick another merge, with that merge."""
    for name, measure in MEASURES.items():
        verdict = None if reliability is None else reliability.of(name)
        if name != objective.name and measure.claims_accuracy and verdict is not None and verdict.level == "sound":
            other = best_by(rows, name, measure.direction)
            if other is not None and other.trial != pick.trial:
                yield name, other


def verdict_lines(reliability: Reliability, objective: str, others: Sequence[str] = ()) -> list[str]:
    """The verdict on the objective with its reasons; and those on others and on measures of accuracy, a line each."""
    verdict = reliability.of(objective)
    lines = []
    if verdict is not None:
        lines.append(f"Verdict on {measure_title(objective)}: {verdict.level}; {MEANING[verdict.level]}.")
        lines += [f"  - {reason}" for reason in verdict.reasons]
        if not MEASURES[objective].condition and verdict.level == "sound":
            lines.append("  Whether it agrees with accuracy, only labels can show.")
    for name, measure in MEASURES.items():
        other = reliability.of(name)
        # Who captured nothing knows that NEX is undefined.
        if other is not None and other.reasons == (UNCAPTURED,):
            continue
        if name != objective and (measure.claims_accuracy or name in others) and other is not None:
            why = f": {other.reasons[0]}" if other.reasons else ""
            lines.append(f"Verdict on {measure_title(name)}: {other.level}{why}.")
    for name, measure in MEASURES.items():
        judged = reliability.of(name) if measure.condition else None
        if judged is None:
            continue
        if (voters := judged.figures.get("voters")) and (count := judged.figures.get("variants")):
            lines.append(f"  {counted(round(count), 'variant')}, which vote like {_voters(voters, judged.figures)}.")
        if judged.level != "insufficient":
            lines.append(f"  {measure.condition}.")
    if reliability.match is not None:
        lines.append(f"Conclusions are read as {reliability.match}.")
    return lines


def _voters(voters: float, figures: Mapping[str, float | None]) -> str:
    """How many voters there are in effect, and what hangs on it."""
    if figures.get("copies"):
        return f"{voters:.0f} independent ones: those that are alike are taken for copies"
    otherwise, shown = figures.get("voters_if_copies"), f"{voters:.0f} independent ones"
    if otherwise is None or round(otherwise) == round(voters):
        return shown
    return f"{shown}, or like {otherwise:.0f} if those that are alike are copies"


def next_steps(rows: Sequence[Row], objective: Objective, reliability: Reliability | None, run: Path) -> list[str]:
    """What to do next, each step once with its command.

    The export of what is recommended comes first. Unless its verdict is sound, what would make the ranking sound
    follows; where nothing is recommended, the merge with equal weights comes last.
    """
    found, verdicts = recommend(rows, objective, reliability), _verdicts(objective, reliability)
    if found.row is None and not candidates(rows):
        return [f"No merge can be recommended for export: {found.why}."]
    if reliability is None:
        return [f"For a verdict on what is done so far: {command('rescore', run)}"]
    steps = [] if found.row is None else [_offer(found, objective, run)]
    if found.row is not None and found.by == objective.name and not objective.others:
        steps += [
            f"Or the pick by {measure_title(name)} (sound): {_export(run, name)}"
            for name, _ in _dissenters(of_last_stage(rows), found.row, objective, reliability)
        ]
    if found.level != "sound" or found.by == objective.name:
        steps += [_step(item, rows, run) for verdict in verdicts for item in verdict.advice]
    steps += compare_steps(rows, objective, reliability, found, run)
    by_command: dict[str, str] = {}
    for step in steps:
        by_command.setdefault(step.rpartition(": ")[2], step)  # of two sentences with one command, the first
    equal = next((row for row in candidates(rows) if row.reference), None)
    if found.row is None and equal is not None:
        export = command("export", run, "--trial", trial_label(equal.trial), "--out", "DIR")
        return [*by_command.values(), f"Until then, equal weights need no ranking: {export}"]
    return list(by_command.values())


def _verdicts(objective: Objective, reliability: Reliability | None) -> list[Verdict]:
    found = [] if reliability is None else [reliability.of(name) for name in objective.names]
    return [verdict for verdict in found if verdict is not None]


def _offer(found: Recommendation, objective: Objective, run: Path) -> str:
    """The export of what is recommended."""
    assert found.row is not None
    trial = found.row.trial
    if better := better_than(run, trial):
        told = f"{trial_name(better[0])} better than {trial_name(trial)}"
        return f"No export is offered, as a blind comparison found {told}."
    judged = f"{measure_title(found.by)}{'' if found.level is None else f' ({found.level})'}"
    if found.of_front:
        trial = trial_label(found.row.trial)
        return f"Export one of the front: {command('export', run, '--trial', trial, '--out', 'DIR')}"
    if objective.others:
        return f"Export the best by {judged}: {_export(run, found.by)}"
    if found.by != objective.name:
        return f"Export the pick by {judged}: {_export(run, found.by)}"
    return f"Export the pick: {command('export', run, '--out', 'DIR')}"


def _export(run: Path, name: str) -> str:
    return command("export", run, "--by", name, "--out", "DIR")


def _step(advice: Advice, rows: Sequence[Row], run: Path) -> str:
    """A piece of advice with the command that follows it; without one, it is a sentence."""
    line = _command_for(advice.action, rows, run)
    if line is None:
        return f"{_capital(advice.text)}."
    lead = _capital(advice.lead or advice.text)
    if advice.action is Action.MORE_PROMPTS and (file := _exhausted_file(run)) is not None:
        return f"{lead}, added to {file}: {command('search', run / files.CONFIG, '--out', 'DIR')}"
    return f"{lead}: {line}"


def _command_for(action: Action, rows: Sequence[Row], run: Path) -> str | None:
    """The command that does what the advice says; None: no single one does."""
    match action:
        case Action.AUDIT:
            return command("audit", run)
        case Action.MORE_MERGES:
            if any("recipe" in row.parameters for row in rows):  # a list of recipes has an end
                return None
            merges = sum(row.kind == "merge" for row in rows)
            return command("search", run / files.CONFIG, "--trials", str(2 * max(merges, 10)))
        case Action.WITHOUT_RACING:
            return _again(run, "study.pruner=none")
        case Action.HIGHER_LIMIT:
            return _again(run, "generation.max_new_tokens=N")
        case Action.MORE_PROMPTS:
            return _again(run, "prompts.limit=N")
        case Action.OTHER_PROMPTS:
            return _again(run, "prompts.file=FILE")
        case Action.SHOW_OPTIONS:
            return _again(run, "prompts.options=appended")
        case Action.BENCHMARK:
            return command("benchmark", run, "--data", "FILE")
        case Action.NONE:
            return None


def _exhausted_file(run: Path) -> str | None:
    """The run's file of prompts, if all of them were asked; else None."""
    config = run / files.CONFIG
    prompts = files.read_yaml_mapping(config).get("prompts", {}) if config.is_file() else {}
    return prompts.get("file") if prompts.get("limit") is None else None


def _again(run: Path, setting: str) -> str:
    return command("search", run / files.CONFIG, "--set", setting, "--out", "DIR")
