"""The pick's responses beside its parents' to the same prompts, annotated with their phases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nex_merge.inert import visible
from nex_merge.inspect.reading import Reading, read_trial
from nex_merge.inspect.show import render_fragment
from nex_merge.labels.audit import prompt_texts
from nex_merge.report.data import Snapshot, number
from nex_merge.runs.files import trial_label
from nex_merge.wording import counted

PROMPTS = 5
# Responses beyond this size are left out, and the page says how many.
BUDGET = 2_000_000  # bytes
_TITLE_CHARACTERS = 90


@dataclass(frozen=True)
class ComparedPrompt:
    """One prompt with the responses of several variants."""

    title: str
    columns: Sequence[tuple[str, str]]  # the variant's name, and its response as HTML


def compare_responses(snapshot: Snapshot) -> tuple[list[ComparedPrompt], str]:
    """Responses of the pick from its lowest score to its highest beside its parents', and a sentence about them.

    Raises InputError or OSError if the run no longer has its caches or responses, or the tokenizer cannot be loaded.
    """
    pick = snapshot.pick
    if pick is None:
        return [], "There is no pick whose responses could be shown."
    score = snapshot.results[pick["trial"]].score
    chosen = spread(() if score is None else score.response_scores, PROMPTS)
    variants = {f"Pick: trial {trial_label(pick['trial'])}": pick["trial"]}
    variants |= {f"Parent {trial}": trial for trial in sorted(row["trial"] for row in snapshot.of("parent"))}
    readings = {name: list(read_trial(snapshot.run, trial, chosen)) for name, trial in variants.items()}
    compared, size, texts = [], 0, prompt_texts(snapshot.run)
    for at in range(len(chosen)):
        item = _compared({name: found[at] for name, found in readings.items()}, texts)
        size += sum(len(fragment.encode()) for _, fragment in item.columns)
        if size > BUDGET:
            break
        compared.append(item)
    note = _note(len(compared), len(chosen), len(variants) - 1)
    return compared, f"{note} They are from the search." if snapshot.has_final else note


def spread(scores: Sequence[float | None], count: int) -> list[int]:
    """Indices of up to `count` responses, evenly spread from the lowest score to the highest."""
    order = sorted((score, at) for at, score in enumerate(scores) if score is not None)
    count = min(count, len(order))
    places = [round(i * (len(order) - 1) / max(count - 1, 1)) for i in range(count)]
    return [order[place][1] for place in places]


def _compared(readings: Mapping[str, Reading], texts: Sequence[str] | None) -> ComparedPrompt:
    """`texts`: of the prompts, without the chat template; None if they are not known any more."""
    first = next(iter(readings.values()))
    prompt = visible(" ".join((first.prompt if texts is None else texts[first.response.prompt]).split()))
    start = prompt if len(prompt) <= _TITLE_CHARACTERS else f"{prompt[:_TITLE_CHARACTERS]} …"
    scores = ", ".join(number(reading.score, 3) for reading in readings.values())
    title = f"Prompt {first.response.prompt} (scores {scores}): {start}"
    return ComparedPrompt(title, [(name, render_fragment(reading)) for name, reading in readings.items()])


def _note(shown: int, chosen: int, parents: int) -> str:
    if chosen == 0:
        return "No response of the pick has a score, so none is shown."
    if shown == 0:
        return "The responses are too long to show here; nex-merge phases shows them one at a time."
    count = counted(shown, "response")
    beside = "beside its parents' responses to the same prompts" if parents else "without parents, which have no scores"
    omitted = f" {chosen - shown} of {chosen} selected responses are omitted to limit the size of this page."
    return (
        f"{count} of the pick, evenly spread from its lowest score to its highest, {beside}. Explore rows recruit new "
        "neurons, exploit rows reuse known ones; a response's score, its Good-Mass Fraction, is the share of its "
        f"activation on neurons that earned credit, and NEX is the mean.{omitted if shown < chosen else ''}"
    )
