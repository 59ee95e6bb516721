"""The pick's responses beside those of equal weights and the parents: annotated with their phases, or plain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from nex_merge.errors import InputError
from nex_merge.inert import visible
from nex_merge.inspect.reading import read_trial
from nex_merge.inspect.reading_html import render_fragment
from nex_merge.labels.audit import prompt_texts
from nex_merge.records import Response
from nex_merge.report.conclusions import shown_variants
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


@dataclass(frozen=True)
class Shown:
    """Chosen responses of one variant, as HTML."""

    responses: Sequence[Response]
    fragments: Sequence[str]
    scores: Sequence[float | None] | None  # None: without phases
    why: str = ""  # why they are without


def compare_responses(snapshot: Snapshot) -> tuple[list[ComparedPrompt], str]:
    """Responses of the pick beside those of equal weights and the parents, and a sentence about them.

    Where its activations were captured, they go from its lowest score to its highest, else evenly over the prompts.
    Raises InputError or OSError if the run no longer has its responses.
    """
    pick = snapshot.pick
    if pick is None:
        return [], "There is no pick whose responses could be shown."
    score = snapshot.results[pick.trial].score
    scores = None if score is None else score.response_scores
    count = len(snapshot.run.responses(pick.trial))
    chosen = spread(range(count) if scores is None else scores, PROMPTS)
    variants = {name: trial for name, trial in shown_variants(snapshot).items() if name != "Base"}
    found = {name: _shown(snapshot, trial, chosen) for name, trial in variants.items()}
    compared, size, texts = [], 0, prompt_texts(snapshot.run)
    for at in range(len(chosen)):
        item = _compared(found, at, texts)
        size += sum(len(fragment.encode()) for _, fragment in item.columns)
        if size > BUDGET:
            break
        compared.append(item)
    note = _note(len(compared), len(chosen), found, bool(snapshot.of("parent")))
    return compared, f"{note} They are from the search." if snapshot.has_final else note


def spread(scores: Sequence[float | None], count: int) -> list[int]:
    """Indices of up to `count` responses, evenly spread from the lowest score to the highest."""
    order = sorted((score, at) for at, score in enumerate(scores) if score is not None)
    count = min(count, len(order))
    places = [round(i * (len(order) - 1) / max(count - 1, 1)) for i in range(count)]
    return [order[place][1] for place in places]


def _shown(snapshot: Snapshot, trial: str, chosen: Sequence[int]) -> Shown:
    """With phases where activations were captured and can be read, else plain."""
    if snapshot.results[trial].score is None:
        why = f"the activations of trial {trial_label(trial)} were not captured"
    else:
        try:
            readings = list(read_trial(snapshot.run, trial, chosen))
        except (InputError, OSError) as error:
            why = str(error)
        else:
            fragments = [render_fragment(reading) for reading in readings]
            return Shown([r.response for r in readings], fragments, [r.score for r in readings])
    recorded = snapshot.run.responses(trial)
    responses = [recorded[i] for i in chosen if i < len(recorded)]
    return Shown(responses, [_plain(response) for response in responses], None, why)


def _plain(response: Response) -> str:
    end = "cut at generation.max_new_tokens" if response.truncated else "ended by itself"
    about = f"{counted(len(response.token_ids), 'token')}, {end}"
    return Markup('<section class="reading"><p class="quiet">{}</p><pre>{}</pre></section>').format(
        about, escape(visible(response.text))
    )


def _compared(found: Mapping[str, Shown], at: int, texts: Sequence[str] | None) -> ComparedPrompt:
    """`texts`: of the prompts, without the chat template; None if they are not known any more."""
    first = next(iter(found.values()))
    prompt = first.responses[at].prompt
    text = "" if texts is None else visible(" ".join(texts[prompt].split()))
    start = text if len(text) <= _TITLE_CHARACTERS else f"{text[:_TITLE_CHARACTERS]} …"
    scores = ", ".join(number(item.scores[at], 3) for item in found.values() if item.scores is not None)
    title = f"Prompt {prompt}{f' (scores {scores})' if scores else ''}{f': {start}' if start else ''}"
    columns = [(name, item.fragments[at]) for name, item in found.items() if at < len(item.fragments)]
    return ComparedPrompt(title, columns)


def _note(shown: int, chosen: int, found: Mapping[str, Shown], parents: bool) -> str:
    first = next(iter(found.values()))
    if chosen == 0:
        return "No response of the pick has a score, so none is shown."
    if shown == 0:
        return "The responses are too long to show here; nex-merge phases shows them one at a time."
    count = counted(shown, "response")
    beside = "those of equal weights and the parents" if parents else "those of equal weights"
    beside = f"beside {beside} to the same prompts" if len(found) > 1 else "alone"
    beside = beside if parents else f"{beside}, without parents, which have no scores"
    omitted = (
        f" {chosen - shown} of {counted(chosen, 'selected response')} "
        f"{'is' if chosen - shown == 1 else 'are'} omitted to limit the size of this page."
    )
    omitted = omitted if shown < chosen else ""
    plain = {name: item.why for name, item in found.items() if item.scores is None}
    if first.scores is None:
        return f"{count} of the pick, evenly spread over the prompts, {beside}, without phases: {first.why}.{omitted}"
    without = "".join(f" {name} is without phases: {why}." for name, why in plain.items())
    return (
        f"{count} of the pick, evenly spread from its lowest score to its highest, {beside}. Explore rows recruit new "
        "neurons, exploit rows reuse known ones; a response's score, its Good-Mass Fraction, is the share of its "
        f"activation on neurons that earned credit, and NEX is the mean.{omitted}{without}"
    )
