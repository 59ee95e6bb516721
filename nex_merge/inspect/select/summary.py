"""The output of `nex-merge select`: a line per prompt, remarks, and the accuracy of every selector."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np

from nex_merge.inspect.select.accuracy import RANDOM, SelectorComparison, compare_selectors, subset_sizes
from nex_merge.inspect.select.rules import ranking, undecided
from nex_merge.inspect.select.selection import Selection, is_empty
from nex_merge.inspect.select.selectors import LESS_IS_BETTER, SELECTORS


def picks(selection: Selection, by: str) -> Iterator[dict[str, Any]]:
    """For every prompt: the ranking by one selector, and the pick and scores of every selector.

    Candidates are numbered from 0 in the order given or sampled.
    """
    starts = selection.candidates.starts
    for prompt, (low, high) in enumerate(pairwise(starts)):
        by_selector = {name: scores[prompt] for name, scores in selection.scores.items()}
        line: dict[str, Any] = {
            "prompt": prompt,
            "order": ranking(by_selector[by]).tolist(),
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


def remarks(selection: Selection) -> Iterator[str]:
    """Notes on the candidates: duplicates, empty ones, undefined scores, ties."""
    responses, candidates = selection.responses, selection.candidates
    distinct = len({(response.prompt, response.text) for response in responses})
    empty = sum(is_empty(response) for response in responses)
    times = ", ".join(f"{name} {value:.1f} s" for name, value in selection.seconds.items())
    yield (
        f"{len(candidates.similarity)} prompts, {len(responses)} candidates: {len(responses) - distinct} duplicates "
        f"within their prompt, {empty} empty ({times})"
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
    yield f"{'':<15}" + "".join(f"{f'{item.candidates} ({item.prompts} prompts)':<32}" for item in found).rstrip()
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


def _bounds(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"
