"""The output of `nex-merge select`: a line per prompt, remarks, and the accuracy of every selector."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np

from nex_merge.inspect.select.accuracy import ALL, RANDOM, SelectorComparison, compare_selectors, subset_sizes
from nex_merge.inspect.select.rules import ranking, undecided
from nex_merge.inspect.select.selection import Selection, is_empty
from nex_merge.inspect.select.selectors import LESS_IS_BETTER, SELECTORS
from nex_merge.wording import counted

AGREEMENT, WITHOUT_CONCLUSIONS = "majority", "neighbours"  # the default, and where no candidate concludes anything
STUDY = "results/studies/best-of-n.md"
# What it found: by selector, gain over a random choice among 16 answers, of two merges of qwen3-tiny at temperature 0.7
# and of the same two at 1.3.
FOUND: Mapping[str, tuple[float, float, float, float]] = {
    "nex": (-0.12, -0.02, -0.38, -0.28),
    "majority": (0.03, 0.03, 0.21, 0.20),
    "shortest": (-0.00, 0.03, -0.11, -0.00),
    "entropy": (-0.04, 0.10, -0.01, 0.12),
    "self_certainty": (-0.07, 0.04, -0.02, 0.10),
    "fewest_neurons": (-0.18, -0.10, -0.39, -0.27),
    "medoid": (0.04, 0.01, 0.20, 0.13),
    "neighbours": (0.04, 0.06, 0.21, 0.17),
}


def selector_of(selection: Selection, prompt: int, by: str | None) -> str:
    """The selector that orders a prompt's candidates: `by`, else agreement of conclusions, where there are any."""
    if by is not None:
        return by
    return WITHOUT_CONCLUSIONS if _is_silent(selection, prompt) else AGREEMENT


def _is_silent(selection: Selection, prompt: int) -> bool:
    return bool(np.isnan(selection.scores[AGREEMENT][prompt]).all())


def picks(selection: Selection, by: str | None = None) -> Iterator[dict[str, Any]]:
    """For every prompt: the ranking by one selector (see `selector_of`), and the pick and scores of every selector.

    Candidates are numbered from 0 in the order given or sampled.
    """
    starts = selection.candidates.starts
    for prompt, (low, high) in enumerate(pairwise(starts)):
        by_selector = {name: scores[prompt] for name, scores in selection.scores.items()}
        line: dict[str, Any] = {
            "prompt": prompt,
            "by": (chosen := selector_of(selection, prompt, by)),
            "order": ranking(by_selector[chosen]).tolist(),
            "picks": {name: int(ranking(scores)[0]) for name, scores in by_selector.items()},
            "scores": {name: _signed(name, scores) for name, scores in by_selector.items()},
        }
        if selection.right is not None:
            line["right"] = selection.right[low:high].tolist()
        if selection.sampled:
            line["responses"] = [response.text for response in selection.responses[low:high]]
        yield line


def _signed(name: str, scores: np.ndarray) -> list[float | None]:
    """Scores in their usual direction; None: undefined."""
    sign = -1 if name in LESS_IS_BETTER else 1
    return [None if np.isnan(score) else sign * float(score) for score in scores]


def order_in_words(selection: Selection, by: str | None) -> Iterator[str]:
    """What orders the candidates, and what the study of selectors found about it."""
    prompts = len(selection.candidates.similarity)
    silent = sum(_is_silent(selection, prompt) for prompt in range(prompts))
    chosen = by or (WITHOUT_CONCLUSIONS if silent == prompts else AGREEMENT)
    yield f"ordered by {chosen}: {SELECTORS[chosen]}"
    if silent:
        what = f"no candidate of {silent} of {counted(prompts, 'prompt')} concludes anything"
        if by is None:
            yield f"{what}; these are ordered by {WITHOUT_CONCLUSIONS}, which needs no conclusion and ties any two"
        elif by == AGREEMENT:
            yield f"{what}; there the first is picked"
    yield f"gain over a random choice of 16 answers that two merges of qwen3-tiny gave to its problems ({STUDY}):"
    for name in dict.fromkeys((chosen, AGREEMENT, WITHOUT_CONCLUSIONS, "nex")):
        first, second, hot, hotter = FOUND[name]
        yield (
            f"  {name + ':':<16}{first:+.2f} and {second:+.2f} at temperature 0.7, {hot:+.2f} and {hotter:+.2f} at 1.3"
        )
    yield "one small family, whose right answers are alike; at 0.7 the gains of majority may be chance"


def remarks(selection: Selection) -> Iterator[str]:
    """Notes on the candidates: duplicates, empty ones, undefined scores, ties."""
    responses, candidates = selection.responses, selection.candidates
    distinct = len({(response.prompt, response.text) for response in responses})
    empty = sum(is_empty(response) for response in responses)
    times = ", ".join(f"{name} {value:.1f} s" for name, value in selection.seconds.items())
    cut = sum(response.truncated for response in responses)
    yield (
        f"{counted(len(candidates.similarity), 'prompt')}, {counted(len(responses), 'candidate')}: "
        f"{counted(len(responses) - distinct, 'duplicate')} within their prompt, {empty} empty"
        f"{f', {cut} cut off, which conclude nothing' if cut else ''} ({times})"
    )
    starts = candidates.starts
    contested = [p for p, size in enumerate(np.diff(starts)) if size > 1]
    undefined = {
        name: sum(int(np.isnan(scores[p]).sum()) for p in contested) for name, scores in selection.scores.items()
    }
    if any(undefined.values()):
        counts = ", ".join(f"{name} {count}" for name, count in undefined.items() if count)
        yield f"candidates with undefined scores, which rank last: {counts}"
    if contested and not any((np.nan_to_num(scores) > 0).any() for scores in selection.scores["nex"]):
        yield "nex: no candidate has mass on a neuron with positive weight, so all are tied"
    tied = {
        name: np.mean([undecided(scores[p], candidates.conclusions[starts[p] : starts[p + 1]]) for p in contested])
        for name, scores in selection.scores.items()
        if contested
    }
    shares = [f"{name} {share:.0%}" for name, share in tied.items() if share > 0]
    if shares:
        yield f"prompts with ties between different conclusions, where the first is picked: {', '.join(shares)}"


def comparisons(selection: Selection) -> list[SelectorComparison]:
    """The accuracy of every selector for every number of candidates; requires known answers."""
    assert selection.right is not None
    counts = np.diff(selection.candidates.starts)
    return [compare_selectors(selection.candidates, selection.right, size) for size in subset_sizes(counts)]


def summary(selection: Selection, found: Sequence[SelectorComparison], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The data of --summary."""
    return {
        **settings,
        "prompts": len(selection.candidates.similarity),
        "responses": len(selection.responses),
        "seconds": dict(selection.seconds),
        "selectors": dict(SELECTORS),
        "comparisons": [asdict(item) for item in found],
    }


def table(found: Sequence[SelectorComparison]) -> Iterator[str]:
    """Accuracies as lines of text, with a column for every number of candidates."""
    if not found:
        yield "no prompt has two or more candidates, so there is nothing to compare"
        return
    yield "accuracy, and gain over a random choice [95 % over prompts], by selector and number of candidates:"
    heads = [f"{item.candidates} ({counted(item.prompts, 'prompt')})" for item in found]
    yield f"{'':<15}" + "".join(f"{head:<32}" for head in heads).rstrip()
    for name in found[0].selectors:
        cells = []
        for item in found:
            accuracy = item.selectors[name]
            if name == RANDOM:
                shown = f"{accuracy.accuracy:.3f}{_bounds(accuracy.low, accuracy.high, '.3f')}"
            else:
                gain = f"{accuracy.gain:+.3f}{_bounds(accuracy.gain_low, accuracy.gain_high, '+.3f')}"
                shown = f"{accuracy.accuracy:.3f} {gain}"
            cells.append(f"{shown:<32}")
        yield f"{name:<15}" + "".join(cells).rstrip()
    yield f"over all subsets of a prompt's candidates where there are at most {ALL}, else over random ones"


def _bounds(low: float | None, high: float | None, form: str) -> str:
    """Nothing, too, where all prompts are alike: their resamples say nothing of others."""
    return "" if low is None or high is None or high - low < 1e-9 else f" [{low:{form}}, {high:{form}}]"
