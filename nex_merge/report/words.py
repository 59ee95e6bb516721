"""What the page says in whole sentences. Knows the run's data alone."""

from collections.abc import Mapping
from typing import Any

from nex_merge.report.data import MISSING, Snapshot, number, short, states

# Below so many merges a parameter, importances are called few.
FEW = 10


def progress(snapshot: Snapshot) -> str:
    done, planned = snapshot.merges, snapshot.planned
    if done >= planned and not snapshot.begun:
        return f"The search is finished: {done} {_merges(done)} of {planned} planned."
    begun = f"; under way or cut off: {', '.join(short(trial) for trial in snapshot.begun)}" if snapshot.begun else ""
    return (
        f"The search is not finished: {done} of {planned} planned {_merges(planned)} were done when this page was "
        f"made, while it ran or after it was stopped{begun}."
    )


def _merges(count: int) -> str:
    return "merge" if count == 1 else "merges"


def counted(snapshot: Snapshot) -> str:
    total = len(snapshot.rows)
    each = ", ".join(f"{count} {state}" for state, count in states(snapshot).items())
    return f"{total} {'trial' if total == 1 else 'trials'}: {each}."


def no_pick(snapshot: Snapshot) -> str:
    if snapshot.merges == 0:
        return "No merge is finished yet."
    first = next(row for row in snapshot.rows if row["kind"] == "merge")
    return (
        f"None of the {snapshot.merges} finished merges is sound: trial {short(first['trial'])}, for one, is "
        f"{first['state']} ({first['reason']})."
    )


def called(trial: str) -> str:
    """A trial as a sentence names it: a number needs the word, base and parents have names."""
    return f"trial {short(trial)}" if trial.isdigit() else trial


def standing(snapshot: Snapshot) -> list[str]:
    """How the pick stands to chance and to what it was made of."""
    pick, name = snapshot.pick, snapshot.objective.name
    if pick is None:
        return []
    lines = []
    if pick["nex_low"] is None:
        lines.append("There is no interval: that takes more than one prompt.")
    else:
        interval = f"{pick['nex_low']:.3f} to {pick['nex_high']:.3f}"
        lines.append(
            f"95 % interval over prompts: {interval}."
            if name == "nex"
            else f"Its NEX is {number(pick['nex'])}, with the 95 % interval over prompts {interval}."
        )
    parents = snapshot.of("parent")
    if not parents:
        lines.append(
            "No parent is scored, so there is nothing to hold it against: the run was set up without base and parents."
            if not snapshot.settings["study"]["baselines"]
            else "No parent has a score, so there is nothing to hold it against."
        )
        return lines
    best = parents[0]
    if pick["beats_parent"] is not None:
        # The best by NEX, which need not be the best by another objective.
        by = "" if name == "nex" else " by NEX"
        lines.append(f"Probability of beating the best parent{by}: {pick['beats_parent']:.2f}, over resampled prompts.")
    if best["rank"] < pick["rank"]:
        lines.append(
            f"The best parent, {best['trial']} with {number(best[name])}, ranks above it: no merge of this run is "
            f"better by {name} than what it was made of."
        )
    else:
        lines.append(f"The best parent is {best['trial']} with {number(best[name])}.")
    return lines


def verdict_age(snapshot: Snapshot) -> str:
    """That the verdict is older than the trials, where it is."""
    found = snapshot.reliability
    sound = states(snapshot)["complete"]
    if found is None or found.variants == sound:
        return ""
    return (
        f"It is that of the leaderboard as last written, with {found.variants} sound variants; now there are {sound}."
    )


def importance(merges: int, parameters: int) -> str:
    if merges >= FEW * max(parameters, 1):
        return ""
    return f"That is few, with fewer than {FEW} merges a parameter: more merges may well give another order."


def agreement(found: Mapping[str, Any], name: str) -> str:
    """What the objective's correlation with accuracy says."""
    item = found["scores"].get(name)
    if item is None or item["spearman"]["value"] is None:
        return f"Whether {name} agrees with accuracy can't be told: some variant lacks it, or all are equal."
    low, high = item["spearman"]["low"], item["spearman"]["high"]
    if low <= 0 <= high:
        return f"The interval of {name} holds 0: this run doesn't show that it orders variants by accuracy."
    if low > 0:
        return f"The interval of {name} is above 0: in this run, better by {name} goes with better by accuracy."
    return f"The interval of {name} is below 0: in this run, better by {name} goes with worse by accuracy."


def interval(item: Mapping[str, float | None]) -> str:
    if item["value"] is None:
        return MISSING
    return f"{item['value']:.2f} [{item['low']:.2f}, {item['high']:.2f}]"
