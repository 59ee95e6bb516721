"""Selection -> what is told of it: a line for every prompt, remarks, and the accuracy of every selector."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np

from nex_merge.inspect.select.accuracy import RANDOM, Comparison, compare, sizes
from nex_merge.inspect.select.rules import ranking, undecided
from nex_merge.inspect.select.selection import Selection, is_empty
from nex_merge.inspect.select.selectors import LESS_IS_BETTER, SELECTORS


def picks(selection: Selection, by: str) -> Iterator[dict[str, Any]]:
    """What is said of every prompt: the order by one selector, every selector's pick, and its scores as they are read.

    Candidates are numbered from 0, as given or drawn.
    """
    starts = selection.candidates.starts
    for prompt, (low, high) in enumerate(pairwise(starts)):
        own = {name: scores[prompt] for name, scores in selection.scores.items()}
        line: dict[str, Any] = {
            "prompt": prompt,
            "order": ranking(own[by]).tolist(),
            "picks": {name: int(ranking(scores)[0]) for name, scores in own.items()},
            "scores": {name: _read(name, scores) for name, scores in own.items()},
        }
        if selection.right is not None:
            line["right"] = selection.right[low:high].tolist()
        if selection.drawn:
            line["responses"] = [response.text for response in selection.responses[low:high]]
        yield line


def _read(name: str, scores: np.ndarray) -> list[float | None]:
    sign = -1 if name in LESS_IS_BETTER else 1
    return [None if np.isnan(score) else sign * float(score) for score in scores]


def remarks(selection: Selection) -> Iterator[str]:
    """What has to be known of these candidates: copies, empty ones, undefined scores, ties."""
    responses, candidates = selection.responses, selection.candidates
    different = len({(response.prompt, response.text) for response in responses})
    empty = sum(is_empty(response) for response in responses)
    took = ", ".join(f"{name} {value:.1f} s" for name, value in selection.seconds.items())
    yield (
        f"{len(candidates.similarity)} prompts, {len(responses)} candidates: {len(responses) - different} repeat "
        f"another of their prompt, {empty} are empty ({took})"
    )
    starts = candidates.starts
    rivals = [p for p, size in enumerate(np.diff(starts)) if size > 1]
    unknown = {name: sum(int(np.isnan(scores[p]).sum()) for p in rivals) for name, scores in selection.scores.items()}
    if any(unknown.values()):
        counts = ", ".join(f"{name} {count}" for name, count in unknown.items() if count)
        yield f"undefined, and so ranked last: {counts} of the candidates"
    if rivals and not any((np.nan_to_num(scores) > 0).any() for scores in selection.scores["nex"]):
        yield "nex: no candidate has mass on a neuron with positive weight, so that it tells none from another"
    tied = {
        name: np.mean([undecided(scores[p], candidates.conclusions[starts[p] : starts[p + 1]]) for p in rivals])
        for name, scores in selection.scores.items()
        if rivals
    }
    often = [f"{name} {share:.0%}" for name, share in tied.items() if share > 0]
    if often:
        yield f"tied at the top, with different conclusions, so that the first is picked: {', '.join(often)} of prompts"


def comparisons(selection: Selection) -> list[Comparison]:
    """Every selector's accuracy at every number of candidates; needs answers, and prompts with two candidates."""
    assert selection.right is not None
    counts = np.diff(selection.candidates.starts)
    return [compare(selection.candidates, selection.right, size) for size in sizes(counts)]


def summary(selection: Selection, found: Sequence[Comparison], settings: Mapping[str, Any]) -> dict[str, Any]:
    """All of it for a file."""
    return {
        **settings,
        "prompts": len(selection.candidates.similarity),
        "responses": len(selection.responses),
        "seconds": dict(selection.seconds),
        "selectors": dict(SELECTORS),
        "comparisons": [asdict(item) for item in found],
    }


def table(found: Sequence[Comparison]) -> Iterator[str]:
    """Accuracies as lines of text: a column for every number of candidates."""
    if not found:
        yield "no prompt has two candidates, so there is nothing to compare"
        return
    yield "right, and gain over a random choice [95 % over prompts], by what picks one of so many candidates:"
    yield f"{'':<15}" + "".join(f"{f'{item.candidates} ({item.prompts} prompts)':<32}" for item in found).rstrip()
    for name in found[0].selectors:
        cells = []
        for item in found:
            own = item.selectors[name]
            if name == RANDOM:
                shown = f"{own.accuracy:.3f}{_bounds(own.low, own.high, '.3f')}"
            else:
                shown = f"{own.accuracy:.3f} {own.gain:+.3f}{_bounds(own.gain_low, own.gain_high, '+.3f')}"
            cells.append(f"{shown:<32}")
        yield f"{name:<15}" + "".join(cells).rstrip()


def _bounds(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"
