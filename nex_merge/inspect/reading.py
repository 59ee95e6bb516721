"""A response as rows of text with their phases: what is shown to people, and held against what people say."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from nex_merge.activations.cache import read_cache
from nex_merge.errors import InputError
from nex_merge.nex.calibration import analyse
from nex_merge.nex.novelty import MIN_ROWS
from nex_merge.records import Cycle, Response, ResponseAnalysis, SparseRows
from nex_merge.runs import files
from nex_merge.runs.remerge import opened_run
from nex_merge.study.trial import load_tokenizer

EXPLORE, EXPLOIT = "explore", "exploit"
_FALLBACKS = {
    "zero_spread": "no phases by the HMM, as the slopes have no spread",
    "mixture_failed": "no phases by the HMM, as no mixture of two states fits the slopes",
    "decoding_failed": "no phases by the HMM, as no path through its states has a finite probability",
}


@dataclass(frozen=True)
class Row:
    """One row: tokens [first_token, end_token) of the response, characters [start, end) of its text."""

    first_token: int
    end_token: int
    start: int
    end: int
    phase: str | None  # explore | exploit; None: no phase, as the row has no activation mass or the response is short
    slope: float | None  # new neurons per token
    observation: float | None  # the slope, detrended and standardized


@dataclass(frozen=True)
class Reading:
    """One response with what NEX finds in it."""

    response: Response
    prompt: str
    token_starts: tuple[int, ...]  # [n+1]: the character that each token begins at, and where the last one ends
    rows: tuple[Row, ...]
    kept_rows: tuple[int, ...]  # the row that each retained row is; cycles count retained rows
    cycles: tuple[Cycle, ...]
    fallback: str | None  # why z > 0 stood in for the HMM
    score: float | None  # Good-Mass Fraction, where it is known

    def text(self, row: Row) -> str:
        return self.response.text[row.start : row.end]

    def rows_of(self, first: int, last: int) -> tuple[Row, ...]:
        """The rows from one retained row to another, both included."""
        return self.rows[self.kept_rows[first] : self.kept_rows[last] + 1]

    def span(self, first: int, last: int) -> tuple[int, int]:
        """The numbers of two retained rows among all rows."""
        return self.kept_rows[first], self.kept_rows[last]

    @property
    def spans(self) -> tuple[tuple[str | None, tuple[int, ...]], ...]:
        """Maximal runs of rows of one phase, in order: the phase and the numbers of its rows."""
        numbered = groupby(range(len(self.rows)), key=lambda number: self.rows[number].phase)
        return tuple((phase, tuple(numbers)) for phase, numbers in numbered)

    @property
    def explore_share(self) -> float | None:
        """Explore rows among those with a phase; None where there are none."""
        phases = [row.phase for row in self.rows if row.phase is not None]
        return phases.count(EXPLORE) / len(phases) if phases else None

    @property
    def why_no_phases(self) -> str | None:
        """Why no row has a phase; None where some have."""
        if self.kept_rows:
            return None
        tokens = len(self.response.token_ids)
        if len(self.rows) < MIN_ROWS:
            return (
                f"the response is too short: its {tokens} tokens make {len(self.rows)} of the {MIN_ROWS} rows that "
                "phases take; a longer response or shorter rows (activations.slice_tokens) would do"
            )
        return f"fewer than {MIN_ROWS} of its {len(self.rows)} rows have any activation mass"

    @property
    def why_fallback(self) -> str | None:
        """Why the phases are not the HMM's, with what stood in; None where they are."""
        return None if self.fallback is None else f"{_FALLBACKS[self.fallback]}: rows with z > 0 count as exploring"


def outcome(cycle: Cycle) -> str:
    """How a cycle is credited: effective, redundant, or none with the reason."""
    if cycle.reuse is None:
        return "none: its explore rows are no newer than the response" if cycle.strength <= 0 else "none: nothing new"
    if cycle.effective > 0:
        return "effective"
    return "redundant" if cycle.redundant > 0 else "none: its reuse is the median itself"


def read_trial(run: Path, trial: str, responses: Sequence[int] | None = None) -> Iterator[Reading]:
    """A scored trial's responses (all, unless numbered), with the score each has on the run's leaderboard.

    Raises InputError where the trial has no responses, or not so many.
    """
    result = files.find_scored(files.read_results(run), trial)
    assert result.score is not None, "scored"
    config, family = opened_run(run)
    folder = files.trial_folder(run, result.trial)
    tokenizer = load_tokenizer(family.folders[family.donor])
    kept, cache = files.read_responses(folder), read_cache(folder / files.CACHE)
    scores = files.read_scores(run).get(result.trial, result.score).response_scores
    # The phases that the leaderboard's scores rest on.
    scoring = files.read_scoring(run) or config.nex.model_dump()
    analyses = analyse(cache, scoring["rho"], scoring["min_run"])
    for number in range(len(kept)) if responses is None else responses:
        if not 0 <= number < len(kept):
            raise InputError(f"response {number}: trial {result.trial} has responses 0 to {len(kept) - 1}")
        yield read(kept[number], cache, number, analyses[number], scores[number], tokenizer)


def read(
    response: Response,
    cache: SparseRows,
    index: int,
    analysis: ResponseAnalysis,
    score: float | None,
    tokenizer: PreTrainedTokenizerBase,
) -> Reading:
    """The reading of a response, the `index`-th of its cache."""
    starts = token_starts(response, tokenizer)
    first, last = int(cache.sample_row_ptr[index]), int(cache.sample_row_ptr[index + 1])
    ends = np.asarray(cache.token_row_ptr[first : last + 1]) - int(cache.token_row_ptr[first])
    novelty, phases = analysis.novelty, analysis.phases
    kept = () if novelty is None else tuple(int(row) for row in novelty.kept_rows)
    place = {row: t for t, row in enumerate(kept)}
    rows = []
    for number, (low, high) in enumerate(pairwise(ends.tolist())):
        found: tuple[str | None, float | None, float | None] = (None, None, None)
        if number in place:
            assert novelty is not None and phases is not None
            t = place[number]
            phase = EXPLORE if phases.explore[t] else EXPLOIT
            found = (phase, float(novelty.slopes[t]), float(novelty.observations[t]))
        rows.append(Row(low, high, starts[low], starts[high], *found))
    prompt = str(tokenizer.decode(list(response.prompt_ids)))
    fallback = None if phases is None else phases.fallback
    return Reading(response, prompt, tuple(starts), tuple(rows), kept, analysis.cycles, fallback, score)


def token_starts(response: Response, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Where each of n tokens begins in the response's text, and where the last one ends; int [n+1], rising.

    A token that completes no character (a part of UTF-8, a special token) is as long as nothing.
    """
    ids = list(response.token_ids)
    starts, at = [0], 0
    shown = read_to = 0  # what is decoded besides, for the blanks that a tokenizer puts between tokens
    for end in range(1, len(ids) + 1):
        before = str(tokenizer.decode(ids[shown:read_to], skip_special_tokens=True))
        now = str(tokenizer.decode(ids[shown:end], skip_special_tokens=True))
        if not now.endswith("\ufffd") and len(now) > len(before):
            at += len(now) - len(before)
            shown, read_to = read_to, end
        starts.append(min(at, len(response.text)))
    return [*starts[:-1], len(response.text)]
