"""A response as rows of text with their phases: what is displayed, and compared with human annotations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from transformers import PreTrainedTokenizerBase

from nex_merge.engines.loading import load_tokenizer
from nex_merge.errors import InputError
from nex_merge.nex.calibration import analyse
from nex_merge.nex.novelty import MIN_ROWS
from nex_merge.records import Cycle, Response, ResponseAnalysis, SparseRows
from nex_merge.runs import files
from nex_merge.runs.run import RunFolder
from nex_merge.wording import counted

EXPLORE, EXPLOIT = "explore", "exploit"
_FALLBACKS = {
    "zero_spread": "the HMM cannot be fitted, because the slopes have no spread",
    "mixture_failed": "the HMM cannot be fitted, because no mixture of two states fits the slopes",
    "decoding_failed": "the HMM cannot be decoded, because no path through its states has a finite probability",
}


@dataclass(frozen=True)
class Row:
    """One row: tokens [first_token, end_token) of the response, characters [start, end) of its text."""

    first_token: int
    end_token: int
    start: int
    end: int
    phase: str | None  # explore | exploit; None: the row has no activation mass, or the response is too short
    slope: float | None  # new neurons per token
    observation: float | None  # the slope, detrended and standardized


@dataclass(frozen=True)
class Reading:
    """One response with its rows, phases and cycles."""

    response: Response
    prompt: str
    token_starts: tuple[int, ...]  # [n+1]: the character at which each token begins, and the end of the last one
    rows: tuple[Row, ...]
    kept_rows: tuple[int, ...]  # row number of every retained row; cycles refer to retained rows
    cycles: tuple[Cycle, ...]
    fallback: str | None  # why z > 0 replaced the HMM
    score: float | None  # Good-Mass Fraction; None: not known

    def text(self, row: Row) -> str:
        return self.response.text[row.start : row.end]

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Row numbers of two retained rows."""
        return self.kept_rows[first], self.kept_rows[last]

    @property
    def spans(self) -> tuple[tuple[str | None, tuple[int, ...]], ...]:
        """Maximal runs of rows with the same phase, in order: the phase and its row numbers."""
        numbered = groupby(range(len(self.rows)), key=lambda number: self.rows[number].phase)
        return tuple((phase, tuple(numbers)) for phase, numbers in numbered)

    @property
    def explore_share(self) -> float | None:
        """Share of explore rows among the rows with a phase; None if there are none."""
        phases = [row.phase for row in self.rows if row.phase is not None]
        return phases.count(EXPLORE) / len(phases) if phases else None

    @property
    def why_no_phases(self) -> str | None:
        """Why no row has a phase; None if some have one."""
        if self.kept_rows:
            return None
        tokens = len(self.response.token_ids)
        if len(self.rows) < MIN_ROWS:
            return (
                f"the response is too short: phases need at least {MIN_ROWS} rows, and its "
                f"{counted(tokens, 'token')} {'fills' if tokens == 1 else 'fill'} "
                f"{len(self.rows)}. Generate longer responses or use shorter rows (activations.slice_tokens)"
            )
        return f"fewer than {MIN_ROWS} of the {counted(len(self.rows), 'row')} have any activation mass"

    @property
    def why_fallback(self) -> str | None:
        """Why the phases are not those of the HMM, and what replaced it; None if they are."""
        return None if self.fallback is None else f"{_FALLBACKS[self.fallback]}; rows with z > 0 count as explore"


def outcome(cycle: Cycle) -> str:
    """How a cycle is credited: effective, redundant, or none with the reason."""
    if cycle.reuse is None:
        return "none: explore rows no newer than the response" if cycle.strength <= 0 else "none: no new neurons"
    if cycle.effective > 0:
        return "effective"
    return "redundant" if cycle.redundant > 0 else "none: reuse equal to the median"


def read_trial(run: RunFolder, trial: str, responses: Sequence[int] | None = None) -> Iterator[Reading]:
    """The responses of a scored trial (all, or those with these numbers) under the scoring of the run's leaderboard.

    Raises InputError if the trial has no responses, or fewer than a given number, or its activations were not kept.
    """
    result = run.find_scored(trial)
    assert result.score is not None, "scored"
    phases, scores = run.scoring(), run.scores()
    score = result.score if scores is None else scores.trials.get(result.trial, result.score)
    recorded = run.responses(result.trial)
    numbers = range(len(recorded)) if responses is None else responses
    for number in numbers:
        if not 0 <= number < len(recorded):
            raise InputError(
                f"response {number}: expected 0 to {len(recorded) - 1}, because {files.trial_name(result.trial)} has "
                f"{counted(len(recorded), 'response')}"
            )
    tokenizer = load_tokenizer(run.tokenizer_folder)
    cache = run.rows(result.trial)
    analyses = analyse(cache, phases.rho, phases.min_run)
    for number in numbers:
        yield read(recorded[number], cache, number, analyses[number], score.response_scores[number], tokenizer)


def read(
    response: Response,
    cache: SparseRows,
    index: int,
    analysis: ResponseAnalysis,
    score: float | None,
    tokenizer: PreTrainedTokenizerBase,
) -> Reading:
    """The reading of a response, which is number `index` of the cache."""
    starts = token_starts(response, tokenizer)
    first, last = int(cache.sample_row_ptr[index]), int(cache.sample_row_ptr[index + 1])
    ends = np.asarray(cache.token_row_ptr[first : last + 1]) - int(cache.token_row_ptr[first])
    novelty, phases = analysis.novelty, analysis.phases
    kept = () if novelty is None else tuple(int(row) for row in novelty.kept_rows)
    measured: dict[int, tuple[str, float, float]] = {}
    if novelty is not None and phases is not None:
        named = [EXPLORE if explore else EXPLOIT for explore in phases.explore]
        figures = zip(named, novelty.slopes.tolist(), novelty.observations.tolist(), strict=True)
        measured = dict(zip(kept, figures, strict=True))
    rows = [
        Row(low, high, starts[low], starts[high], *measured.get(number, (None, None, None)))
        for number, (low, high) in enumerate(pairwise(ends.tolist()))
    ]
    prompt = str(tokenizer.decode(list(response.prompt_ids)))
    fallback = None if phases is None else phases.fallback
    return Reading(response, prompt, tuple(starts), tuple(rows), kept, analysis.cycles, fallback, score)


def token_starts(response: Response, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The character at which each of n tokens begins in the response's text, and the end of the last; [n+1], ascending.

    A token that completes no character (part of a UTF-8 sequence, a special token) is empty.
    """
    ids = list(response.token_ids)
    starts, at = [0], 0
    # Tokens are decoded with the previous ones as context, since tokenizers put spaces between tokens.
    context, done = 0, 0
    for end in range(1, len(ids) + 1):
        before = str(tokenizer.decode(ids[context:done], skip_special_tokens=True))
        after = str(tokenizer.decode(ids[context:end], skip_special_tokens=True))
        if not after.endswith("\ufffd") and len(after) > len(before):
            at += len(after) - len(before)
            context, done = done, end
        starts.append(min(at, len(response.text)))
    return [*starts[:-1], len(response.text)]
