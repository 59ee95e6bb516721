"""A leaderboard in sentences: the pick, what speaks for it, the verdicts, and what to do next with its command."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nex_merge.measures.estimates import Objective
from nex_merge.measures.registry import MEASURES, measure_title
from nex_merge.measures.trust import AUDIT, CONDITION, MORE_VARIANTS, UNRACED
from nex_merge.records import Reliability, Verdict
from nex_merge.runs import files
from nex_merge.runs.files import trial_label
from nex_merge.runs.front import AnyRow, first_front
from nex_merge.setup.paths import command

Row = Mapping[str, Any]
# Measures that can speak for a pick: what they rank high is meant to be right more often.
SUPPORTING = ("consensus", "agreement", "self_consistency", "finished", "nex")
MOST = 12  # trials of a front that a sentence names
MEANING = {
    "sound": "other prompts would give much the same ranking",
    "weak": "this ranking is coarse",
    "insufficient": "this ranking supports no choice",
}


def best_by(rows: Sequence[Row], name: str, sign: int) -> Row | None:
    """The complete merge with the best value of a measure; of equal ones, the first. None if there is none.

    After a final, one that took part in it: values from other prompts can't be compared.
    """
    merges = [r for r in of_last_stage(rows) if r["kind"] == "merge" and r["state"] == "complete"]
    merges = [r for r in merges if r.get(name) is not None]
    return min(merges, key=lambda row: (-sign * row[name], int(row["trial"])), default=None)


def better_members(rows: Sequence[Row], pick: Row, name: str, sign: int) -> list[str]:
    """Base and the parents that are better than a merge by a measure."""
    members = [row for row in of_last_stage(rows) if row["kind"] != "merge" and row[name] is not None]
    return [row["trial"] for row in members if sign * (row[name] - pick[name]) > 0]


def of_last_stage(rows: Sequence[AnyRow]) -> Sequence[AnyRow]:
    """The rows of the final, if there was one, else all."""
    return [row for row in rows if row.get("stage") == "final"] or rows


def lead(rows: Sequence[Row], objective: Objective, reliability: Reliability | None) -> Iterator[str]:
    """The result, in a few lines above the table: the pick, and a measure that is sound and disagrees.

    With several objectives, the merges of the first front take the place of the pick.
    """
    rows = of_last_stage(rows)
    if objective.others:
        yield from _front(rows, objective, reliability)
        return
    pick = best_by(rows, objective.name, objective.sign)
    if pick is None:
        return
    verdict = None if reliability is None else reliability.of(objective.name)
    trial = f"trial {trial_label(pick['trial'])} ({pick['method']})"
    yield f"Pick by {measure_title(objective.name)}{_level(verdict)}: {trial}, {_estimate(pick, objective.name)}"
    parts = [*_odds(pick), *_supporters(rows, pick, objective, reliability)]
    if parts:
        yield f"  {'; '.join(parts)}."
    above = [r for r in rows if r["rank"] and r["kind"] != "merge" and r["rank"] < (pick["rank"] or 0)]
    if above:
        names = ", ".join(f"{row['trial']} {_number(row, objective.name)}" for row in above)
        yield f"  Above it: {names}. By {measure_title(objective.name)}, no merge is better."
    for name, other in _dissenters(rows, pick, objective, reliability):
        trial = trial_label(other["trial"])
        yield f"  {measure_title(name)} is sound and disagrees: trial {trial}, {_estimate(other, name)}"


def _front(rows: Sequence[Row], objective: Objective, reliability: Reliability | None) -> Iterator[str]:
    """The merges of the first front, the best of them by each objective, and who else would be on it."""
    front = first_front(rows)
    if not front:
        return
    by = " and ".join(measure_title(name) for name in objective.names)
    yield f"Front by {by}: {_trials(front)}."
    for one in objective.all:
        best, verdict = best_by(front, one.name, one.sign), None if reliability is None else reliability.of(one.name)
        if best is not None:
            trial = f"trial {trial_label(best['trial'])} ({best['method']})"
            yield f"  Best {measure_title(one.name)}{_level(verdict)}: {trial}, {_estimate(best, one.name)}"
    above = [row["trial"] for row in rows if row["kind"] != "merge" and row["front"] == 1]
    if above:
        yield f"  No merge is better than {' or '.join(above)} in one objective without being worse in another."


def _trials(front: Sequence[Row]) -> str:
    """Trials in a sentence; of many, the first twelve."""
    names = [trial_label(row["trial"]) for row in front]
    if len(names) == 1:
        return f"trial {names[0]}"
    if len(names) > MOST:
        return f"trials {', '.join(names[:MOST])} and {len(names) - MOST} more"
    return f"trials {', '.join(names[:-1])} and {names[-1]}"


def _level(verdict: Verdict | None) -> str:
    return "" if verdict is None else f" ({verdict.level})"


def _number(row: Row, name: str) -> str:
    return f"{row[name]:.{MEASURES[name].digits}f}" if row.get(name) is not None else "-"


def _estimate(row: Row, name: str) -> str:
    low, high, digits = row.get(f"{name}_low"), row.get(f"{name}_high"), MEASURES[name].digits
    interval = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return _number(row, name) + interval


def _odds(pick: Row) -> list[str]:
    """Confidences against the references, where there are any."""
    against = (("beats_parent", "the best parent"), ("beats_equal", "equal weights"))
    odds = [f"{what} {pick[name]:.0%}" for name, what in against if pick.get(name) is not None]
    found = ["it is the merge with equal weights"] if pick.get("reference") else []
    return [*found, f"confidence that it beats {', '.join(odds)}"] if odds else found


def _supporters(rows: Sequence[Row], pick: Row, objective: Objective, reliability: Reliability | None) -> list[str]:
    """The other measures that put the pick above every parent and equal weights."""
    if reliability is None:
        return []
    references = [r for r in rows if (r["kind"] == "parent" or r["reference"]) and r["trial"] != pick["trial"]]
    found = []
    for name in SUPPORTING:
        verdict, value = reliability.of(name), pick.get(name)
        if name == objective.name or value is None or verdict is None or verdict.level == "insufficient":
            continue
        others = [row[name] for row in references if row.get(name) is not None]
        if others and all(MEASURES[name].direction * (value - other) > 0 for other in others):
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
            if other is not None and other["trial"] != pick["trial"]:
                yield name, other


def verdict_lines(reliability: Reliability, objective: str, others: Sequence[str] = ()) -> list[str]:
    """The verdict on the objective with its reasons; and those on others and on measures of accuracy, a line each."""
    verdict = reliability.of(objective)
    lines = []
    if verdict is not None:
        lines.append(f"Verdict on {measure_title(objective)}: {verdict.level}; {MEANING[verdict.level]}.")
        lines += [f"  - {reason}" for reason in verdict.reasons]
        if objective != "consensus" and verdict.level == "sound":
            lines.append("  Whether it agrees with accuracy, only labels can show.")
    for name, measure in MEASURES.items():
        other = reliability.of(name)
        if name != objective and (measure.claims_accuracy or name in others) and other is not None:
            why = f": {other.reasons[0]}" if other.reasons else ""
            lines.append(f"Verdict on {measure_title(name)}: {other.level}{why}.")
    judged = reliability.of("consensus")
    if judged is not None and judged.level != "insufficient":
        lines.append(f"  {CONDITION}.")
    if reliability.match is not None:
        lines.append(f"Conclusions are read as {reliability.match}.")
    return lines


def next_steps(rows: Sequence[Row], objective: Objective, reliability: Reliability | None, run: Path) -> list[str]:
    """What to do next, each step once with its command.

    An export is offered where the objective's verdict is not insufficient. Else it is the pick of a measure with a
    better verdict and, unless that is sound, what would make the ranking sound; without such a pick, the merge with
    equal weights comes last. With several objectives, one of the front is offered where no objective's verdict is
    insufficient, else the best by one whose verdict is not.
    """
    pick = best_by(rows, objective.name, objective.sign)
    verdict = None if reliability is None else reliability.of(objective.name)
    if objective.others and first_front(of_last_stage(rows)):
        return _front_steps(rows, objective, reliability, run)
    if pick is None or objective.others:
        beyond = sum(row["state"] == "infeasible" for row in rows)
        why = f", and {beyond} {'is' if beyond == 1 else 'are'} beyond study.constraints" if beyond else ""
        what = "complete with every objective" if objective.others else "complete"
        return [f"No merge can be recommended for export: none is {what}{why}."]
    if verdict is None or verdict.level != "insufficient":
        steps = [f"Export the pick: {command('export', run, '--out', 'DIR')}"]
        steps += [
            f"Or the pick by {measure_title(name)} (sound): {_export(run, name)}"
            for name, _ in _dissenters(of_last_stage(rows), pick, objective, reliability)
        ]
        return steps + [_step(item, rows, run) for item in (verdict.advice if verdict is not None else ())]
    steps = [
        f"Export the pick by {measure_title(name)} ({level}): {_export(run, name)}"
        for name, level in _better(rows, objective, reliability)[:1]
    ]
    if steps and "(sound)" in steps[0]:
        return steps
    advised = [_step(item, rows, run) for item in verdict.advice]
    by_command: dict[str, str] = {}
    for step in [*steps, *advised]:
        by_command.setdefault(step.rpartition(": ")[2], step)  # of two sentences with one command, the first
    equal = next((row for row in rows if row.get("reference") and row["state"] == "complete"), None)
    if not steps and equal is not None:
        export = command("export", run, "--trial", trial_label(equal["trial"]), "--out", "DIR")
        return [*by_command.values(), f"Until then, equal weights need no ranking: {export}"]
    return list(by_command.values())


def _front_steps(rows: Sequence[Row], objective: Objective, reliability: Reliability | None, run: Path) -> list[str]:
    verdicts = {name: None if reliability is None else reliability.of(name) for name in objective.names}
    fit = [name for name, verdict in verdicts.items() if verdict is None or verdict.level != "insufficient"]
    steps = [_step(item, rows, run) for verdict in verdicts.values() if verdict is not None for item in verdict.advice]
    if len(fit) == len(verdicts):
        trial = trial_label(first_front(of_last_stage(rows))[0]["trial"])
        steps = [f"Export one of the front: {command('export', run, '--trial', trial, '--out', 'DIR')}", *steps]
    elif fit:
        steps = [
            f"Export the best by {measure_title(fit[0])}{_level(verdicts[fit[0]])}: {_export(run, fit[0])}",
            *steps,
        ]
    return list(dict.fromkeys(steps))


def _better(rows: Sequence[Row], objective: Objective, reliability: Reliability | None) -> list[tuple[str, str]]:
    """The other measures of accuracy that have a pick worth exporting, with their verdicts, sound ones first.

    The verdict is not insufficient, and by the measure no parent, nor base, is better than the pick.
    """
    found = []
    for name, measure in MEASURES.items():
        verdict = None if reliability is None else reliability.of(name)
        if name == objective.name or not measure.claims_accuracy or verdict is None:
            continue
        pick = best_by(rows, name, measure.direction)
        if verdict.level == "insufficient" or pick is None:
            continue
        if not better_members(rows, pick, name, measure.direction):
            found.append((name, verdict.level))
    return sorted(found, key=lambda item: item[1] != "sound")


def _export(run: Path, name: str) -> str:
    return command("export", run, "--by", name, "--out", "DIR")


def _step(advice: str, rows: Sequence[Row], run: Path) -> str:
    """An advice with the command that follows it."""
    config = run / "config.yaml"
    merges = sum(row["kind"] == "merge" for row in rows)
    sentence = f"{advice[0].upper()}{advice[1:]}"
    if advice == AUDIT:
        return f"Check a dozen answers yourself: {command('audit', run)}"
    if advice == MORE_VARIANTS and not any("p.recipe" in row for row in rows):  # a list of recipes has an end
        return f"More merges: {command('search', config, '--trials', str(2 * max(merges, 10)))}"
    if advice == UNRACED:
        return f"{sentence}: {_again(config, 'study.pruner=none')}"
    if "max_new_tokens" in advice:
        return f"{sentence}: {_again(config, 'generation.max_new_tokens=N')}"
    if "benchmark" in advice:
        return f"{sentence}: {command('benchmark', run, '--data', 'FILE')}"
    if "prompts" in advice:
        prompts = files.read_yaml_mapping(config).get("prompts", {}) if config.is_file() else {}
        if prompts.get("limit") is None and "file" in prompts:  # all of the file's were asked
            return f"{sentence}, added to {prompts['file']}: {command('search', config, '--out', 'DIR')}"
        return f"{sentence}: {_again(config, 'prompts.limit=N')}"
    return f"{sentence}."


def _again(config: Path, setting: str) -> str:
    return command("search", config, "--set", setting, "--out", "DIR")
