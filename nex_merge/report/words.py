"""The report's sentences about a run, from its snapshot. No HTML, no figures."""

from collections.abc import Mapping
from typing import Any

from nex_merge.measures.registry import MEASURES, measure_title
from nex_merge.report.data import MISSING, Snapshot, number, states
from nex_merge.runs.files import trial_label
from nex_merge.runs.leaderboard import Row

# Merges per parameter below which importances come with a warning.
FEW = 10


def progress(snapshot: Snapshot) -> str:
    done, planned = snapshot.merges, snapshot.planned
    merges = "merge" if planned == 1 else "merges"
    if done >= planned and not snapshot.unfinished:
        return f"The search is finished: {done} of {planned} {merges}."
    trials = ", ".join(trial_label(trial) for trial in snapshot.unfinished)
    unfinished = f" In progress or interrupted: {trials}." if trials else ""
    return f"The search is not finished: {done} of {planned} {merges} when this page was created.{unfinished}"


def counts(snapshot: Snapshot) -> str:
    total = len(snapshot.rows)
    each = ", ".join(f"{count} {state}" for state, count in states(snapshot).items())
    return f"{total} {'trial' if total == 1 else 'trials'}: {each}."


def no_pick(snapshot: Snapshot) -> str:
    """Why there is no pick; "" if there is one."""
    merges = [row for row in snapshot.rows if row["kind"] == "merge"]
    if snapshot.pick is not None:
        return ""
    if not merges:
        return "No merge has finished yet."
    finished = "The only finished merge is not" if len(merges) == 1 else f"None of the {len(merges)} finished merges is"
    first = merges[0]
    return f"{finished} complete; for example, trial {trial_label(first['trial'])} {first['state']}: {first['reason']}."


def standing(snapshot: Snapshot) -> list[str]:
    """How certain the pick's value is, and how it compares with the parents."""
    pick = snapshot.pick
    return [] if pick is None else [*_intervals(snapshot, pick), *_against_parents(snapshot, pick)]


def _intervals(snapshot: Snapshot, pick: Row) -> list[str]:
    name, measure = snapshot.objective.name, measure_title(snapshot.objective.name)
    estimates = snapshot.results[pick["trial"]].estimates
    lead, nex = estimates.get(name), estimates.get("nex")
    if lead is not None and lead.low is not None:
        lines = [f"95 % interval over prompts: {number(lead.low)} to {number(lead.high)}."]
    elif MEASURES[name].with_interval:
        lines = ["There is no 95 % interval: it requires at least two prompts."]
    else:
        lines = [f"There is no 95 % interval of {measure}."]
    if name != "nex" and nex is not None and nex.value is not None:
        interval = "" if nex.low is None else f" (95 % interval {number(nex.low)} to {number(nex.high)})"
        lines.append(f"Its NEX is {number(nex.value)}{interval}.")
    return lines


def _against_parents(snapshot: Snapshot, pick: Row) -> list[str]:
    name, measure, parents = snapshot.objective.name, measure_title(snapshot.objective.name), snapshot.of("parent")
    if not parents:
        if not snapshot.run.config.study.baselines:
            return ["There are no parents to compare it with: the run was set up with study.baselines: false."]
        return ["There are no parents to compare it with: none of them has a score."]
    lines, best = [], parents[0]
    if pick["beats_parent"] is not None:
        confidence = f"{pick['beats_parent']:.2f}"
        lines.append(
            f"Confidence that it beats every parent by {measure}: {confidence}, corrected for selection among merges."
        )
    if snapshot.objective.others:
        return lines  # ranks go by fronts; what the sentences above the leaderboard say of parents is about those
    if best["rank"] < pick["rank"]:
        lines.append(
            f"The best parent, {best['trial']} with {number(best[name])}, ranks higher: by {measure}, no merge of this "
            "run is better."
        )
    else:
        lines.append(f"The best parent is {best['trial']} with {number(best[name])}.")
    return lines


def verdict_age(snapshot: Snapshot) -> str:
    """A note on a verdict older than the latest trials; "" if it is up to date."""
    reliability, complete = snapshot.reliability, states(snapshot)["complete"]
    if reliability is None or reliability.variants == complete:
        return ""
    return (
        f"It dates from when the scores were last written, with {reliability.variants} complete variants; there are "
        f"now {complete}."
    )


def importance(merges: int, parameters: int) -> str:
    if merges >= FEW * max(parameters, 1):
        return ""
    return f"With fewer than {FEW} merges per parameter, the order may change as more merges are added."


def agreement(agreement: Mapping[str, Any], name: str) -> str:
    """What the correlation of measure `name` with accuracy shows."""
    item, measure = agreement["scores"].get(name), measure_title(name)
    if item is None or item["spearman"]["value"] is None:
        return (
            f"The correlation of {measure} with accuracy is undefined: a variant has no value, or all values are equal."
        )
    low, high = item["spearman"]["low"], item["spearman"]["high"]
    interval = f"The Spearman interval of {measure}"
    if low <= 0 <= high:
        return f"{interval} includes 0: this run does not show that it ranks variants by accuracy."
    side, degree = ("above", "more") if low > 0 else ("below", "less")
    return f"{interval} is {side} 0: in this run, variants with better {measure} are {degree} accurate."


def correlation(item: Mapping[str, float | None]) -> str:
    """A correlation with its interval."""
    if item["value"] is None:
        return MISSING
    return f"{item['value']:.2f} [{item['low']:.2f}, {item['high']:.2f}]"
