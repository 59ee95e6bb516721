"""The pick's responses beside its parents' to the same prompts, with their phases. Composes readings and their HTML."""

from collections.abc import Sequence
from dataclasses import dataclass

from nex_merge.inspect.reading import Reading, read_trial
from nex_merge.inspect.show import render_fragment, visible
from nex_merge.report.data import Snapshot, number, short

PROMPTS = 5
# Long responses make long pages: what doesn't fit is left out, and said to be.
BUDGET = 2_000_000  # bytes


@dataclass(frozen=True)
class Compared:
    """One prompt with the responses of several variants."""

    title: str
    columns: Sequence[tuple[str, str]]  # whose it is, and its HTML


def compare(snapshot: Snapshot) -> tuple[list[Compared], str]:
    """Responses of the pick from its lowest score to its highest, its parents' beside them; and what to say of them.

    Raises InputError or OSError where the run has no more what that takes: caches, responses or the tokenizer.
    """
    pick = snapshot.pick
    if pick is None:
        return [], "There is no pick whose responses could be shown."
    chosen = spread(snapshot.results[pick["trial"]].score.response_scores, PROMPTS)  # pyright: ignore
    variants = {f"The pick, trial {short(pick['trial'])}": pick["trial"]}
    variants |= {f"Parent {trial}": trial for trial in sorted(row["trial"] for row in snapshot.of("parent"))}
    readings = {label: list(read_trial(snapshot.run, trial, chosen)) for label, trial in variants.items()}
    compared, size = [], 0
    for at in range(len(chosen)):
        item = _compared({label: found[at] for label, found in readings.items()})
        size += sum(len(fragment.encode()) for _, fragment in item.columns)
        if size > BUDGET:
            break
        compared.append(item)
    return compared, _note(len(compared), len(chosen), len(variants) - 1)


def spread(scores: Sequence[float | None], count: int) -> list[int]:
    """Up to `count` responses, evenly spread from the lowest score to the highest."""
    order = sorted((score, at) for at, score in enumerate(scores) if score is not None)
    count = min(count, len(order))
    places = [round(i * (len(order) - 1) / max(count - 1, 1)) for i in range(count)]
    return [order[place][1] for place in places]


def _compared(readings: dict[str, Reading]) -> Compared:
    first = next(iter(readings.values()))
    prompt = visible(" ".join(first.prompt.split()))
    beginning = prompt if len(prompt) <= 90 else f"{prompt[:90]} …"
    scores = ", ".join(number(found.score, 3) for found in readings.values())
    title = f"Prompt {first.response.prompt} (Good-Mass Fractions {scores}): {beginning}"
    return Compared(title, [(label, render_fragment(found)) for label, found in readings.items()])


def _note(shown: int, chosen: int, parents: int) -> str:
    beside = "beside its parents' to the same prompts" if parents else "alone, as no parent is scored"
    if shown == 0:
        return "The responses are too long to be shown here; nex-merge phases shows one at a time."
    count = "1 response" if shown == 1 else f"{shown} responses"
    left = f" Of {chosen} chosen ones, {chosen - shown} are left out, as they would make this page too large."
    return (
        f"{count} of the pick, evenly spread from its lowest score to its highest, {beside}. Explore rows recruit new "
        f"neurons, exploit rows use those they have.{left if shown < chosen else ''}"
    )
