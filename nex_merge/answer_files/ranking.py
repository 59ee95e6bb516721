"""Files of models' answers to the same prompts -> the models ranked by consensus. No model is loaded.

A prompt that a file lacks counts as not answered: a model that left out the hard prompts would win otherwise.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from nex_merge.answer_files.lines import AnswerFile, KnownAnswer, Prompts, read_answers, translated
from nex_merge.answers.conclusions import Gold, Key, check_match, read_gold
from nex_merge.errors import InputError
from nex_merge.labels.items import unlike
from nex_merge.measures.concluding import choose_match, conclusions_of
from nex_merge.measures.consensus_verdict import TELLING
from nex_merge.measures.ranking import Ranking, consensus
from nex_merge.wording import counted

FEWEST_FILES = 2
# Below the first share of prompts that all files have, a ranking is insufficient, below the second it is weak.
SHARED = (0.5, 0.9)
CUT = 0.1  # share of a file's responses from which on it is said that they were cut off
SAME_PROMPTS = "the answers that a file lacks, or the files without it, or the ranking on the shared prompts (--shared)"
_LEVELS = ("insufficient", "weak", "sound")

Conclusions = dict[int, list[Key | None]]  # by prompt, one for each sample


@dataclass(frozen=True)
class RankedFiles:
    """The ranking of files of answers, with what it rests on."""

    ranking: Ranking
    match: str  # how conclusions were read
    prompts: int  # in any of the files
    shared: int  # in all of them
    ranked: int  # those that the ranking rests on
    answered: Mapping[str, int]  # by file: how many of those it has
    concluded: Mapping[str, float]  # by file: share of its responses that conclude something
    accuracy: Mapping[str, float]  # by file: share of the known answers that it gives; empty without known answers
    labelled: int  # prompts with a known answer
    notes: tuple[str, ...]  # on what is missing, cut off or doubtful


def rank_files(files: Sequence[Path], match: str = "auto", shared: bool = False) -> RankedFiles:
    """Rank models by files of their answers: JSONL with `prompt` or `messages`, and `response` or `responses`.

    Prompts are matched by their text; lines with the same one are samples of it. A prompt that a file lacks counts as
    not answered; `shared`: rank on the prompts that all files have. Those that only one file has are left out. With an
    `answer`, known answers measure accuracy and audit the verdict; the ranking itself never uses them. `choices` or
    `options` say how many options a question has, and in which order.

    Raises InputError, naming file and line, for whatever can't be read as that.
    """
    if match != "auto":
        check_match(match)
    if len(files) < FEWEST_FILES:
        raise InputError(f"consensus: expected at least two files, one for each model, got {len(files)}")
    for i, file in enumerate(files):
        if any(file.resolve() == other.resolve() for other in files[:i]):
            raise InputError(f"{file}: given twice; one model's answers would count as two models that agree")
    prompts = Prompts()
    read = {str(file): read_answers(file, prompts) for file in files}
    chosen = choose_match([one.observed for one in read.values()]) if match == "auto" else match
    if chosen != "number":
        prompts.check_letters()
    found = {name: _conclusions(one, chosen, prompts) for name, one in read.items()}
    everywhere, kept = _kept(found, shared)
    given = {name: len(item) for name, item in found.items()}
    found = {name: {p: keys for p, keys in item.items() if p in kept} for name, item in found.items()}
    golds = {p: gold for p, gold in _golds(prompts.answers, chosen, prompts.options).items() if p in kept}
    accuracy, truths = _grade(read, found, golds, chosen)
    # An empty list: asked, and no response. It agrees with nobody, and is no response that concludes nothing.
    asked = {name: {p: item.get(p, []) for p in sorted(kept)} for name, item in found.items()}
    ranking = consensus(asked, options=prompts.options, audit=truths, match=chosen)
    # Of two that agree as often, who answered more comes first.
    rows = sorted(ranking.rows, key=lambda r: (1.0 if r.consensus is None else -r.consensus, -given[r.name]))
    ranking = _weakened(replace(ranking, rows=tuple(rows)), len(everywhere), len(kept))
    return RankedFiles(
        ranking, chosen, len(prompts.number), len(everywhere), len(kept),
        {name: len(item) for name, item in found.items()},
        {name: _share(key is not None for keys in item.values() for key in keys) for name, item in found.items()},
        accuracy, len(golds), tuple(_notes(read, found, prompts, kept, shared, chosen)),
    )  # fmt: skip


def _conclusions(read: AnswerFile, match: str, prompts: Prompts) -> Conclusions:
    found = conclusions_of(read.observed, match, prompts.options)
    if match == "number" or not read.orders:
        return found
    return {p: [read.translated(key, p, sample) for sample, key in enumerate(keys)] for p, keys in found.items()}


def _kept(found: Mapping[str, Conclusions], shared: bool) -> tuple[Set[int], Set[int]]:
    """The prompts of all files, and those that the files are ranked on."""
    asked = {name: set(item) for name, item in found.items()}
    everywhere = set.intersection(*asked.values())
    times = Counter(p for item in asked.values() for p in item)
    twice = {p for p, count in times.items() if count > 1}
    for name, item in asked.items():
        if not item & twice:
            what = "no two files have a prompt in common" if not twice else "has no prompt in common with the others"
            raise InputError(f"{name}: {what}; consensus needs answers to the same prompts, which are matched by text")
    if shared and not everywhere:
        raise InputError(f"--shared: expected prompts that all {len(found)} files have, got none")
    return everywhere, everywhere if shared else twice


def _golds(answers: Iterable[KnownAnswer], match: str, options: Mapping[int, int]) -> dict[int, Gold]:
    """By prompt, its known answer. Raises InputError, naming the line, if it can't be read or two differ."""
    found: dict[int, tuple[KnownAnswer, Gold]] = {}
    for answer in answers:
        try:
            gold = read_gold(answer.text, match, answer.choices or options.get(answer.prompt))
        except ValueError as error:
            raise InputError(f"{answer.where}: answer {answer.text!r} cannot be read as {match}: {error}") from None
        gold = replace(gold, key=translated(gold.key, answer.order))
        earlier, first = found.setdefault(answer.prompt, (answer, gold))
        if (gold.key, gold.expression) != (first.key, first.expression) and (gold.key is None or gold.key != first.key):
            raise InputError(
                f"{answer.where}: answer {answer.text!r}: the same prompt has the answer {earlier.text!r} in "
                f"{earlier.where}"
            )
    return {prompt: gold for prompt, (_, gold) in found.items()}


def _grade(
    read: Mapping[str, AnswerFile], found: Mapping[str, Conclusions], golds: Mapping[int, Gold], match: str
) -> tuple[dict[str, float], dict[int, str | None]]:
    """By file, the share of the known answers that it gives, of all that there are; by prompt, the right conclusion."""
    accuracy: dict[str, float] = {}
    # Equal mathematics may have another key than the known answer.
    truths: dict[int, str | None] = {}
    for name, one in read.items():
        right: dict[int, list[bool]] = {p: [] for p in golds}
        for response in one.observed.responses:
            if (gold := golds.get(response.prompt)) is None:
                continue
            key = found[name][response.prompt][response.sample]
            is_right = key is not None and key == gold.key
            # Mathematics may be equal without equal keys.
            is_right |= match == "number" and not response.truncated and gold.is_answered_by(response.text)
            right[response.prompt].append(is_right)
            if is_right:
                truths.setdefault(response.prompt, key)
        if golds:
            accuracy[name] = sum(_share(values) for values in right.values() if values) / len(golds)
    return accuracy, {p: truths.get(p, gold.key) for p, gold in golds.items()}


def _weakened(ranking: Ranking, shared: int, ranked: int) -> Ranking:
    """The ranking, its verdict no better than the prompts that all files have allow."""
    if shared == ranked:
        return ranking
    limits = zip(SHARED, TELLING, strict=True)
    level = sum(shared >= share * ranked and shared >= count for share, count in limits)
    if level == len(SHARED):
        return ranking
    reason = f"only {shared} of {counted(ranked, 'prompt')} are in all files; the others say nothing of who lacks them"
    advice = tuple(dict.fromkeys((SAME_PROMPTS, *ranking.advice)))
    verdict = _LEVELS[min(level, _LEVELS.index(ranking.verdict))]
    return replace(ranking, verdict=verdict, reasons=(reason, *ranking.reasons), advice=advice)


def _notes(
    read: Mapping[str, AnswerFile],
    found: Mapping[str, Conclusions],
    prompts: Prompts,
    kept: Set[int],
    shared: bool,
    match: str,
) -> Iterator[str]:
    for name, item in found.items():
        if missing := len(kept) - len(item):
            yield f"{name}: lacks {missing} of {counted(len(kept), 'prompt')}, which count as not answered"
    if missing := len(prompts.number) - len(kept):
        where = "that not all files have" if shared else "that only one file has"
        yield f"left out: {counted(missing, 'prompt')} {where}"
    for name, one in read.items():
        responses = one.observed.responses
        if (cut := sum(response.truncated for response in responses)) > CUT * len(responses):
            yield f"{name}: {cut} of {counted(len(responses), 'response')} cut off, which conclude nothing"
        yield from one.notes
    if prompts.reordered:
        what = counted(len(prompts.reordered), "prompt")
        yield f"choices of {what} come in different orders; letters stand for the choices of their own line"
    golds = {answer.prompt: answer.text for answer in prompts.answers}
    yield from unlike(list(golds.values()), match)


def _share(values: Iterable[bool]) -> float:
    found = list(values)
    return sum(found) / len(found)
