"""What blind comparisons say: judgements -> which of two trials is better, and the sentences about it.

Who goes on with a comparison has to stay blind, so that how often each was preferred is said only once it is over.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

from nex_merge.errors import InputError
from nex_merge.inert import markdown
from nex_merge.measures.estimates import Objective
from nex_merge.measures.registry import CONSENSUS
from nex_merge.records import Reliability
from nex_merge.runs import files
from nex_merge.runs.comparisons import (
    BOTH,
    FIRST,
    NEITHER,
    SECOND,
    Comparison,
    Judgement,
    first_samples,
    hash_of,
    read_comparisons,
)
from nex_merge.runs.files import trial_name
from nex_merge.runs.odds import CLAIMED, is_open, lowest
from nex_merge.runs.recommend import Recommendation, candidates, of_last_stage, recommend
from nex_merge.runs.rows import Row
from nex_merge.sequential import ERROR, State, stand
from nex_merge.setup.paths import command
from nex_merge.wording import counted

SPLIT = "split"  # no answer of more than half of the judges


@dataclass(frozen=True)
class Tally:
    """A comparison, of which only judgements of the answers that the run has now count."""

    comparison: Comparison
    valid: Sequence[Judgement]  # those of these answers

    @cached_property
    def by_prompt(self) -> Mapping[int, Mapping[str, str]]:
        """By prompt: what each judge said."""
        found: dict[int, dict[str, str]] = {}
        for one in self.valid:
            found.setdefault(one.prompt, {})[one.judge] = one.better
        return found

    @cached_property
    def outcomes(self) -> Sequence[str]:
        """What was said of the prompts in the order in which they were drawn, up to the first that nobody has judged.

        A later one would make a sample that somebody chose.
        """
        found = []
        for prompt in self.comparison.order:
            if prompt not in self.by_prompt:
                break
            found.append(combined([*self.by_prompt[prompt].values()]))
        return found

    @cached_property
    def state(self) -> State:
        signs = {FIRST: 1, SECOND: -1}
        return stand([signs.get(outcome, 0) for outcome in self.outcomes], len(self.comparison.order))

    @property
    def counts(self) -> Mapping[str, int]:
        """How often the outcome was each of first, second, both, neither and split."""
        return Counter(self.outcomes)

    @property
    def winner(self) -> str | None:
        """The trial that is better; None: that is not settled."""
        first, second = self.comparison.between
        return {1: first, -1: second}.get(self.state.winner)

    @property
    def waiting(self) -> int:
        """Judged prompts that don't count yet, as one before them has no judgement."""
        return len(self.by_prompt) - len(self.outcomes)

    @property
    def outdated(self) -> int:
        """Judgements of answers that are no longer those of the run."""
        return len(self.comparison.judgements) - len(self.valid)

    @property
    def judges(self) -> Sequence[str]:
        return sorted({one.judge for one in self.valid})

    @property
    def agreement(self) -> tuple[int, int]:
        """Of all pairs of judgements of one prompt, how many are the same; and how many pairs there are."""
        pairs = [pair for said in self.by_prompt.values() for pair in combinations(said.values(), 2)]
        return sum(one == other for one, other in pairs), len(pairs)


def combined(said: Sequence[str]) -> str:
    """What more than half of the judges of a prompt say; a prompt counts once, however many judge it."""
    word, count = Counter(said).most_common(1)[0]
    return word if 2 * count > len(said) else SPLIT


def tally(run: Path, comparison: Comparison) -> Tally:
    """What counts of a comparison. `run`: the folder that has it. Raises InputError if responses are missing."""
    first, second = (
        first_samples(files.read_responses(files.trial_folder(run, trial))) for trial in comparison.between
    )
    now = {prompt: hash_of(first[prompt], second[prompt]) for prompt in {*first} & {*second}}
    asked = {*comparison.order}
    return Tally(
        comparison,
        [one for one in comparison.judgements if one.prompt in asked and one.answers == now.get(one.prompt)],
    )


def tallies(run: Path) -> list[Tally]:
    """What counts of the comparisons of a run and, first, of its final. Raises InputError for what is damaged."""
    return [
        tally(folder, comparison)
        for folder in (run / files.FINAL, run)
        for comparison in read_comparisons(folder)
        if comparison.judgements
    ]


def compared_lines(run: Path, pick: str | None = None) -> list[str]:
    """A line on every blind comparison of a run. `pick`: the merge that the run shows, which may have none.

    What is damaged is said rather than raised: it is no reason to show no leaderboard.
    """
    try:
        found = tallies(run)
    except InputError as error:
        return [f"Compared blind: {error}."]
    lines = [line for one in found for line in tally_lines(one)]
    if found and pick is not None and all(pick not in one.comparison.between for one in found):
        lines.append(f"  None of these is of {trial_name(pick)}, which leads now.")
    return lines


def tally_lines(found: Tally) -> list[str]:
    """A comparison in a sentence, and what else is to be said of its judgements."""
    lines = [f"Compared blind: {_sentence(found)}."]
    same, pairs = found.agreement
    if pairs:
        lines.append(
            f"  {counted(len(found.judges), 'judge')}; of {counted(pairs, 'pair')} of judgements of one prompt, {same} "
            f"{'is' if same == 1 else 'are'} the same."
        )
    if found.waiting and found.winner is None:
        verb = "waits" if found.waiting == 1 else "wait"
        lines.append(
            f"  {counted(found.waiting, 'judged prompt')} {verb}: one before, in the order drawn, has no judgement."
        )
    if found.outdated:
        verb = "doesn't" if found.outdated == 1 else "don't"
        lines.append(f"  {counted(found.outdated, 'judgement')} {verb} count, as the answers have changed since.")
    return lines


def _sentence(found: Tally) -> str:
    first, second = map(trial_name, found.comparison.between)
    return f"{first} against {second} {_result(found)}"


def _result(found: Tally) -> str:
    """What follows the two names."""
    looks, left = len(found.outcomes), found.state.at_most
    if not found.state.is_over:
        return f"on {counted(looks, 'prompt')} so far: not settled; {_more(left)}"
    where = f"on {looks} of {counted(len(found.comparison.order), 'prompt')} on which they differ"
    if found.winner is not None:
        at = f", settled after {found.state.settled_at}" if looks != found.state.settled_at else ""
        return f"{where}: {_counts(found)}: {trial_name(found.winner)} is better (error {ERROR:.0%}{at})"
    rest = len(found.comparison.order) - looks
    why = f", and the {counted(rest, 'prompt')} left can't settle it" if rest else ", though all were looked at"
    return f"{where}: {_counts(found)}: not settled{why}"


def _more(left: int) -> str:
    return f"at most {counted(left, 'more look')}"


def _counts(found: Tally) -> str:
    first, second = map(trial_name, found.comparison.between)
    counts = found.counts
    told = [f"{first} preferred on {counts.get(FIRST, 0)}", f"{second} on {counts.get(SECOND, 0)}"]
    told += [f"both good on {counts[BOTH]}"] if counts.get(BOTH) else []
    told += [f"neither on {counts[NEITHER]}"] if counts.get(NEITHER) else []
    told += [f"judges split on {counts[SPLIT]}"] if counts.get(SPLIT) else []
    return ", ".join(told)


def better_than(run: Path, trial: str) -> list[str]:
    """The trials that blind comparisons call better than this one; none if they are damaged."""
    try:
        return _better_than(tallies(run), trial)
    except InputError:
        return []


def _better_than(found: Sequence[Tally], trial: str) -> list[str]:
    return [one.winner for one in found if trial in one.comparison.between and one.winner not in (None, trial)]


def card_rows(run: Path, trial: str) -> list[str]:
    """The lines of a card's table on the blind comparisons of a trial."""
    try:
        found = [one for one in tallies(run) if trial in one.comparison.between]
    except InputError:
        return []
    return [f"| compared blind | {markdown(_sentence(one))} |" for one in found]


def picked(rows: Sequence[Row], objective: Objective, reliability: Reliability | None) -> str | None:
    """The merge that a run shows first: the recommended one, else the objective's first; None: there is none."""
    row = recommend(rows, objective, reliability).row or next(iter(candidates(rows)), None)
    return None if row is None else row.trial


def pair_of(rows: Sequence[Row], objective: Objective, found: Recommendation) -> tuple[str, str] | None:
    """What is compared unless two are named: the recommended merge, or the objective's first, with base or a parent.

    The first of these by the measure that the merge is picked by; base where none has a value, and where the odds hang
    on how far merges vouch for one another, as the values do then. None: there is no such merge, or nothing beside it.
    """
    row = found.row or next(iter(candidates(rows)), None)
    members = [
        one for one in of_last_stage(rows) if one.kind != "merge" and one.state in files.SCORED
    ]  # ranked: among equal values, the first stays
    if row is None or not members:
        return None
    by = found.by if found.row is not None else objective.name
    sign = objective.sign_of(by)
    valued = [one for one in members if one.value(by) is not None]
    if valued and not is_open(row, by):
        return row.trial, max(valued, key=lambda one: sign * one.known(by)).trial
    return row.trial, min(members, key=lambda one: one.trial != "base").trial


def compare_steps(
    rows: Sequence[Row], objective: Objective, reliability: Reliability, found: Recommendation, run: Path
) -> Iterator[str]:
    """The advice to compare the pick, unless answers or looks have settled already whether it is better."""
    pair = pair_of(rows, objective, found)
    if pair is None:
        return
    row = next(one for one in of_last_stage(rows) if one.trial == pair[0])
    verdict = reliability.of(CONSENSUS.name)
    odds = lowest(row, found.by, objective.name)
    is_doubtful = verdict is None or verdict.level == "insufficient" or odds is None or odds < CLAIMED
    try:
        found_so_far = tallies(run)
    except InputError:
        found_so_far = []
    is_known = any({*one.comparison.between} == {*pair} and one.state.is_over for one in found_so_far)
    is_settled = is_known or _better_than(found_so_far, pair[0]) or _say_the_same(run, pair)
    if is_doubtful and not is_settled:
        yield f"A few looks settle it: {command('compare', run)}"


def _say_the_same(run: Path, pair: tuple[str, str]) -> bool:
    """Whether two trials answer every prompt that both have alike, so that there is nothing to look at."""
    stage = run / files.FINAL if (run / files.FINAL / files.SCORES).is_file() else run
    try:
        one, other = (first_samples(files.read_responses(files.trial_folder(stage, trial))) for trial in pair)
    except InputError:  # a command that reads them says so
        return False
    return all(one[prompt].text.strip() == other[prompt].text.strip() for prompt in one.keys() & other.keys())
