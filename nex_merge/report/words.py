"""The report's sentences about a run, from its snapshot. No HTML, no figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from nex_merge.measures.registry import NEX, measure_title
from nex_merge.report.data import MISSING, Snapshot, states
from nex_merge.runs.files import trial_label
from nex_merge.wording import counted

# Merges per parameter below which importances come with a warning.
FEW = 10


def progress(snapshot: Snapshot) -> str:
    done, planned = snapshot.merges, snapshot.planned
    merges = "merge" if planned == 1 else "merges"
    if done >= planned and not snapshot.unfinished:
        final = (
            f" In the final, {counted(len(snapshot.latest), 'variant')} answered prompts that the search had "
            "not seen; the pick and its values are from there."
        )
        return f"The search is finished: {done} of {planned} {merges}.{final if snapshot.has_final else ''}"
    trials = ", ".join(trial_label(trial) for trial in snapshot.unfinished)
    unfinished = f" In progress or interrupted: {trials}." if trials else ""
    return f"The search is not finished: {done} of {planned} {merges} when this page was created.{unfinished}"


def counts(snapshot: Snapshot) -> str:
    total = len(snapshot.rows)
    each = ", ".join(f"{count} {state}" for state, count in states(snapshot).items())
    return f"{counted(total, 'trial')}: {each}."


def no_pick(snapshot: Snapshot) -> str:
    """Why there is no pick; "" if there is one."""
    merges = [row for row in snapshot.rows if row.kind == "merge"]
    if snapshot.pick is not None:
        return ""
    if not merges:
        return "No merge has finished yet."
    finished = "The only finished merge is not" if len(merges) == 1 else f"None of the {len(merges)} finished merges is"
    first = merges[0]
    return f"{finished} complete; for example, trial {trial_label(first.trial)} {first.state}: {first.reason}."


def no_parents(snapshot: Snapshot) -> str:
    """Why the pick is compared with no parent; "" if it is."""
    if snapshot.of("parent"):
        return ""
    if not snapshot.run.config.study.baselines:
        return "There are no parents to compare it with: the run was set up with study.baselines: false."
    return "There are no parents to compare it with: none of them has a score."


def steps(lines: Sequence[str]) -> list[tuple[str, str]]:
    """(sentence, command) of what to do next; without a command, ""."""
    parts = [line.partition(": nex-merge ") for line in lines]
    return [(f"{sentence}:" if words else sentence, words and f"nex-merge {words}") for sentence, _, words in parts]


def stages(snapshot: Snapshot) -> tuple[str, str]:
    """Sentences for the captions of figures of the search and of the last stage; without a final, none is needed."""
    if not snapshot.has_final:
        return "", ""
    return "Values of the search, on its prompts.", "Values of the final, on its prompts."


def verdict_age(snapshot: Snapshot) -> str:
    """A note on a verdict older than the latest trials; "" if it is up to date."""
    reliability, latest = snapshot.reliability, snapshot.latest
    complete = [row for row in latest if row.state == "complete"]
    if reliability is None:
        return ""
    judged = reliability.complete
    if judged is None:  # older versions kept how many have a NEX
        judged = reliability.variants
        complete = [row for row in complete if row.value(NEX.name) is not None]
    if judged == len(complete):
        return ""
    return (
        f"It dates from when the scores were last written, with {counted(judged, 'complete variant')}; there "
        f"{'is' if len(complete) == 1 else 'are'} now {len(complete)}."
    )


def importance(merges: int, parameters: int) -> str:
    if merges >= FEW * max(parameters, 1):
        return ""
    return f"With fewer than {FEW} merges per parameter, the order may change as more merges are added."


def agreement_summary(agreement: Mapping[str, Any], name: str) -> str:
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
