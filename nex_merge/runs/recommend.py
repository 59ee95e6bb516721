"""Which merge a run recommends, and why none where it does: decided here, for everything that says or exports it."""

from collections.abc import Sequence
from dataclasses import dataclass

from nex_merge.measures.estimates import Objective
from nex_merge.measures.guard import ALLOWANCE
from nex_merge.measures.registry import MEASURES, measure_title
from nex_merge.records import Reliability
from nex_merge.runs.files import trial_label
from nex_merge.runs.front import first_front
from nex_merge.runs.rows import Row

NO_VERDICT = "there is no verdict yet"


@dataclass(frozen=True)
class Recommendation:
    """The merge that is recommended, and the measure whose verdict supports the choice."""

    row: Row | None  # None: nothing is recommended
    by: str  # the measure; where nothing is recommended, the objective
    level: str | None = None  # its verdict, sound or weak; None: an older version wrote none
    why: str = ""  # why nothing is recommended
    of_front: bool = False  # whether any merge of the first front is as good a choice, under several objectives


def recommend(rows: Sequence[Row], objective: Objective, reliability: Reliability | None) -> Recommendation:
    """The best merge by the objective, unless its verdict is insufficient.

    Then the best by another measure of accuracy whose verdict is not, a sound one before a weak one, and by which
    neither base nor a parent is better. With several objectives, the best of the first front by the first of them,
    unless a verdict is insufficient; then the best by the first objective whose verdict is not.
    """
    name = objective.name
    if not candidates(rows):
        return Recommendation(None, name, why=_none_complete(rows))
    if reliability is None:
        return Recommendation(None, name, why=NO_VERDICT)
    levels = {one.name: _level(reliability, one.name) for one in objective.all}
    fit = [one for one in objective.all if levels[one.name] != "insufficient"]
    front = first_front(candidates(rows)) if objective.others else []
    if objective.others and not front:
        return Recommendation(None, name, why=_none_complete(rows, "complete with every objective"))
    if front and len(fit) == len(levels):
        return Recommendation(front[0], name, levels[name], of_front=True)
    for one in fit:
        if (pick := best_by(rows, one.name, one.sign)) is not None:
            return Recommendation(pick, one.name, levels[one.name])
    others = [] if objective.others else _others(rows, objective, reliability)
    supported = [item for item in others if item.row is not None]
    if supported:
        return min(supported, key=lambda item: item.level != "sound")
    unfit = [each for each, level in levels.items() if level == "insufficient"]
    whys = [f"no merge has a value of {measure_title(one.name)}" for one in fit] + [i.why for i in others if i.why]
    unfit += [item.by for item in others if not item.why]
    return Recommendation(None, name, why="; ".join([*_insufficient(unfit), *whys]))


def standing(found: Recommendation, trial: str) -> str:
    """Whether a trial is the one that is recommended, in a few words."""
    if found.row is None:
        return f"nothing is recommended: {found.why}"
    judged = f"by {measure_title(found.by)}{'' if found.level is None else f' ({found.level})'}"
    if found.row.trial == trial:
        return f"it is recommended, {judged}"
    return f"recommended is trial {trial_label(found.row.trial)}, {judged}"


def _others(rows: Sequence[Row], objective: Objective, reliability: Reliability) -> list[Recommendation]:
    """What each of the other measures of accuracy recommends, or why it doesn't: "" where its verdict is why."""
    found = []
    for name, measure in MEASURES.items():
        verdict, pick = reliability.of(name), best_by(rows, name, measure.direction)
        if name == objective.name or not measure.claims_accuracy or verdict is None or pick is None:
            continue
        if verdict.level == "insufficient":
            found.append(Recommendation(None, name))
        elif better := better_members(rows, pick, name, measure.direction):
            why = f"by {measure_title(name)} ({verdict.level}), {better[0]} is better than every merge"
            found.append(Recommendation(None, name, why=why))
        else:
            found.append(Recommendation(pick, name, verdict.level))
    return found


def _insufficient(names: Sequence[str]) -> list[str]:
    titles = [measure_title(name) for name in names]
    if len(titles) < 2:
        return [f"the verdict on {title} is insufficient" for title in titles]
    return [f"the verdicts on {', '.join(titles[:-1])} and {titles[-1]} are insufficient"]


def candidates(rows: Sequence[Row]) -> list[Row]:
    """The merges that can be picked: complete, and with answers.

    After a final, those that took part in it: values from other prompts can't be compared. Versions before the guard
    looked for silence called merges complete that answer nothing.
    """
    return [
        row
        for row in of_last_stage(rows)
        if row.kind == "merge" and row.state == "complete" and (row.value("empty") or 0.0) <= ALLOWANCE
    ]


def best_by(rows: Sequence[Row], name: str, sign: int) -> Row | None:
    """The candidate with the best value of a measure; of equal ones, the first. None if there is none."""
    merges = [row for row in candidates(rows) if row.value(name) is not None]
    return min(merges, key=lambda row: (-sign * row.known(name), int(row.trial)), default=None)


def better_members(rows: Sequence[Row], pick: Row, name: str, sign: int) -> list[str]:
    """Base and the parents that are better than a merge by a measure."""
    members = [row for row in of_last_stage(rows) if row.kind != "merge" and row.value(name) is not None]
    return [row.trial for row in members if sign * (row.known(name) - pick.known(name)) > 0]


def of_last_stage(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows of the final, if there was one, else all."""
    return [row for row in rows if row.stage == "final"] or rows


def _none_complete(rows: Sequence[Row], how: str = "complete") -> str:
    merges = [row for row in of_last_stage(rows) if row.kind == "merge"]
    if not merges:
        return "no merge has finished yet"
    silent = sum(row.state == "complete" and (row.value("empty") or 0.0) > ALLOWANCE for row in merges)
    beyond = sum(row.state == "infeasible" for row in merges)
    parts = [f"{beyond} {'is' if beyond == 1 else 'are'} beyond study.constraints"] if beyond else []
    parts += [f"{silent} {'gives' if silent == 1 else 'give'} empty answers"] if silent else []
    if len(merges) == 1:
        return f"the only merge {parts[0][2:] if parts else f'is not {how}'}"
    return ", and ".join([f"none of {len(merges)} merges is {how}", *parts])


def _level(reliability: Reliability, name: str) -> str | None:
    verdict = reliability.of(name)
    return None if verdict is None else verdict.level
