"""Which two trials are compared, on which prompts, in which order, and which answer stands on which side.

Two trials are compared where their answers differ: in what they conclude, where conclusions can be compared, else in
their texts. Where both conclude the same, they are as good as each other without a look. Order and sides are functions
of a seed, the two trials and the prompt's number, so that they stay what they are however often a comparison is gone on
with; nothing that is shown has them.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from nex_merge.answers.thinking import after_thinking
from nex_merge.errors import InputError
from nex_merge.inert import visible
from nex_merge.labels.audit import prompt_texts
from nex_merge.measures.concluding import conclusions_of
from nex_merge.measures.dissent import is_defined
from nex_merge.measures.measure import Pool
from nex_merge.records import Observation, Response, TrialResult, Variant
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
    keep,
    read_comparisons,
)
from nex_merge.runs.files import trial_name, trial_order
from nex_merge.runs.leaderboard import read_rows, recommendation
from nex_merge.runs.preferred import pair_of
from nex_merge.runs.run import RunFolder
from nex_merge.sequential import FEWEST
from nex_merge.setup.paths import command
from nex_merge.wording import counted

LEFT, RIGHT = "left", "right"
SIDES = (LEFT, RIGHT, BOTH, NEITHER)  # what a judge can say
_MORE = "Compare two that differ more (--between), or search with more prompts"
CUT, NOTHING = "[cut off here]", "[no text]"


@dataclass(frozen=True)
class Question:
    """What a judge is shown of one prompt: nothing of which answer is whose."""

    prompt: int
    text: str
    left: str
    right: str


@dataclass(frozen=True)
class Opened:
    """A comparison with the answers that are compared."""

    run: RunFolder  # whose responses they are: the run, or its final
    comparison: Comparison
    answers: Mapping[int, tuple[Response, Response]]  # by prompt: the first trial's, the second's
    samples: int  # how many responses each prompt has

    @property
    def about(self) -> str:
        """What is compared, in a sentence that tells nothing of any side."""
        first, second = map(trial_name, self.comparison.between)
        count = len(self.comparison.order)
        return (
            f"{first[0].upper()}{first[1:]} and {second} {_differ(self.comparison.match)} differently on {count} of "
            f"{counted(self.comparison.prompts, 'prompt')}"
        )

    def check_enough(self) -> None:
        """Raise InputError if they differ on too few prompts for any judgement to settle which is better."""
        if len(self.comparison.order) < FEWEST:
            raise InputError(
                f"{self.run.path}: {self.about}, and of fewer than {FEWEST} looks not even agreement shows that one is "
                f"better. {_MORE}"
            )

    def questions(self) -> list[Question]:
        """All prompts on which the two differ, in the order drawn."""
        order = self.comparison.order
        texts = _texts(self.run, {prompt: self.answers[prompt][0] for prompt in order})
        found = []
        for prompt in order:
            shown = [_shown(answer) for answer in self.answers[prompt]]
            left, right = reversed(shown) if is_swapped(self.comparison, prompt) else shown
            found.append(Question(prompt, visible(texts[prompt]).strip(), left, right))
        return found

    def judgement(self, prompt: int, judge: str, said: str) -> Judgement:
        """What a judge said of the sides (one of `SIDES`), as it is kept."""
        better = said
        if said in (LEFT, RIGHT):
            better = FIRST if (said == LEFT) != is_swapped(self.comparison, prompt) else SECOND
        return Judgement(prompt, judge, better, self.comparison.answers[prompt])

    def keep(self, *judgements: Judgement) -> "Opened":
        """With these judgements in the run's folder."""
        return self._changed(lambda there: there.with_judgements(*judgements))

    def take_back(self, prompt: int, judge: str) -> "Opened":
        """Without what a judge said of a prompt."""
        return self._changed(lambda there: there.without(prompt, judge))

    def _changed(self, how: Callable[[Comparison], Comparison]) -> "Opened":
        mine = self.comparison
        kept = keep(self.run.path, mine.between, lambda there: how(_now(mine, there)))
        return replace(self, comparison=kept)


def open_comparison(run: RunFolder, between: tuple[str, str] | None = None) -> Opened:
    """The comparison of two trials, as it stands; without names, that of the pick with base or a parent.

    Nothing is written. Raises InputError if there are no such trials, or they have no responses or never differ.
    """
    stage, first, second = _stage(run, between)
    by_trial = [first_samples(stage.responses(one.trial)) for one in (first, second)]
    asked = sorted({*by_trial[0]} & {*by_trial[1]})
    known = {one.between: one for one in read_comparisons(stage.path)}
    pair = first.trial, second.trial
    there = known.get(pair)
    match = there.match if there is not None and there.judgements else _match(stage)
    answers = {prompt: (by_trial[0][prompt], by_trial[1][prompt]) for prompt in asked}
    differing = _differing(stage, answers, match)
    if not differing:
        raise InputError(
            f"{stage.path}: {trial_name(first.trial)} and {trial_name(second.trial)} never {_differ(match)} "
            f"differently on the {counted(len(asked), 'prompt')} that both have answered. {_MORE}"
        )
    seed = stage.config.study.seed if there is None else there.seed
    plan = Comparison(pair, seed, match, len(asked), (), {})
    order = tuple(sorted(differing, key=lambda prompt: _drawn(plan, "order", prompt)))
    hashes = {prompt: hash_of(*answers[prompt]) for prompt in order}
    plan = replace(plan, order=order, answers=hashes, judgements=() if there is None else there.judgements)
    return Opened(stage, plan, answers, stage.config.generation.samples)


def begin(opened: Opened) -> Opened:
    """Keep which prompts are compared, before anybody is asked. Raises InputError if the folder can't be written."""
    return opened.keep()


def is_swapped(comparison: Comparison, prompt: int) -> bool:
    """Whether the answer of the second trial stands left."""
    return _drawn(comparison, "sides", prompt)[0] % 2 == 1


def _drawn(comparison: Comparison, what: str, prompt: int) -> bytes:
    """Random bytes that are a prompt's own, so that neither order nor sides depend on which other prompts there are."""
    return hashlib.sha256(f"{comparison.seed} {what} {' '.join(comparison.between)} {prompt}".encode()).digest()


def _now(mine: Comparison, there: Comparison | None) -> Comparison:
    """The comparison as it is on disk, with the prompts of this one."""
    return mine if there is None else replace(mine, judgements=there.judgements)


def _stage(run: RunFolder, between: tuple[str, str] | None) -> tuple[RunFolder, TrialResult, TrialResult]:
    """The run, or its final if both trials took part in it, and the two trials."""
    pair = between or pair_of(rows := read_rows(run), run.objective, recommendation(run, rows))
    if pair is None:
        raise InputError(
            f"{run.path}: there is no complete merge beside base or a parent yet. Name two trials that have responses: "
            f"{command('compare', run.path, '--between', 'TRIAL', 'TRIAL')}"
        )
    found = [_with_responses(run, name) for name in pair]
    if found[0].trial == found[1].trial:
        raise InputError(
            f"--between: expected two trials, got {trial_name(found[0].trial)} twice (merges with the same recipe are "
            "the same trial)"
        )
    first, second = sorted(found, key=_place)
    final = run.final
    if final is not None and all(
        (result := final.result(one.trial)) is not None and result.state in files.SCORED for one in found
    ):
        return final, first, second
    return run, first, second


def _place(result: TrialResult) -> tuple[int, tuple[int, int, str]]:
    """Merges before parents before base."""
    return -("base", "parent", "merge").index(result.kind), trial_order(result.kind, result.trial)


def _with_responses(run: RunFolder, name: str) -> TrialResult:
    """The trial of this name, or the one whose recipe it repeats. Raises InputError if it has no responses."""
    result = run.find(name)
    if result.same_as is not None:
        result = run.find(result.same_as)
    if result.state not in files.SCORED:
        raise InputError(f"{trial_name(result.trial)} has no responses ({result.reason})")
    return result


def _match(run: RunFolder) -> str | None:
    """How conclusions are read, if the run's variants have conclusions in common; else None."""
    variants = [
        Variant(result.trial, result.kind, True, Observation(run.responses(result.trial)))
        for result in run.results()
        if result.state in files.SCORED
    ]
    pool = Pool(variants, run.rules())
    return pool.match if is_defined(pool.votes) else None


def _differing(run: RunFolder, answers: Mapping[int, tuple[Response, Response]], match: str | None) -> list[int]:
    """The prompts on which the two differ."""
    others = [prompt for prompt, (first, second) in answers.items() if _said(first) != _said(second)]
    if match is None:
        return others
    options = run.questions().options
    first, second = (
        conclusions_of(Observation([answers[prompt][side] for prompt in others]), match, options) for side in (0, 1)
    )
    # Two that conclude nothing need not be alike.
    return [prompt for prompt in others if first[prompt] != second[prompt] or first[prompt] == [None]]


def _differ(match: str | None) -> str:
    return "answer" if match is None else "conclude"


def _said(response: Response) -> str:
    """What an answer says without its thinking; all of it where that was never ended."""
    return after_thinking(response.text) or response.text.strip()


def _shown(response: Response) -> str:
    """An answer as judges see it, whole, and whether it was cut."""
    cut = f"\n{CUT}" if response.truncated else ""
    return f"{visible(_said(response)) or NOTHING}{cut}"


def _texts(run: RunFolder, answers: Mapping[int, Response]) -> Mapping[int, str]:
    """What the prompts say; as the models read them, where their file has changed."""
    texts: Sequence[str] | None = prompt_texts(run)
    if texts is not None:
        return {prompt: texts[prompt] for prompt in answers}
    from nex_merge.engines.loading import load_tokenizer

    tokenizer = load_tokenizer(run.tokenizer_folder)
    return {prompt: str(tokenizer.decode(list(answer.prompt_ids))) for prompt, answer in answers.items()}
