"""Files of models' answers to the same prompts -> the models ranked by consensus. No model is loaded.

A prompt that a file lacks counts as not answered: a model that left out the hard prompts would win otherwise.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from nex_merge.answer_files.lines import AnswerFile, KnownAnswer, Prompts, read_answers, translated
from nex_merge.answer_files.lm_eval import differences, listed, read_samples
from nex_merge.answer_files.sources import Source, find_sources
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
SAME_PROMPTS = (
    "the answers that are missing, or a ranking without the models that lack them, or one on the prompts that all have "
    "(--shared)"
)
_LEVELS = ("insufficient", "weak", "sound")

Conclusions = dict[int, list[Key | None]]  # by prompt, one for each sample


@dataclass(frozen=True)
class RankedFiles:
    """The ranking of files of answers, with what it rests on."""

    ranking: Ranking
    match: str  # how conclusions were read; "number (TASK), choice (TASK)" where tasks of lm-eval differ in it
    prompts: int  # in any of the files
    shared: int  # in all of them
    ranked: int  # those that the ranking rests on
    answered: Mapping[str, int]  # by file: how many of those it has
    concluded: Mapping[str, float]  # by file: share of its responses that conclude something
    accuracy: Mapping[str, float]  # by file: share of the known answers that it gives; empty without known answers
    labelled: int  # prompts with a known answer
    pool_right: int  # those of them on which what all models together conclude is right
    tasks: tuple[str, ...]  # of lm-eval; none for other files
    by_task: Mapping[str, str]  # of several, the verdict on a ranking by each alone
    notes: tuple[str, ...]  # on what is missing, cut off or doubtful


def rank_files(
    files: Sequence[Path], match: str = "auto", shared: bool = False, filtered: str | None = None
) -> RankedFiles:
    """Rank models by files of their answers: JSONL with `prompt` or `messages`, and `response` or `responses`.

    Prompts are matched by their text; lines with the same one are samples of it. A prompt that a file lacks counts as
    not answered; `shared`: rank on the prompts that all files have. Those that only one file has are left out. With an
    `answer`, known answers measure accuracy and audit the verdict; the ranking itself never uses them. `choices` or
    `options` say how many options a question has, and in which order.

    Samples of lm-eval are taken as they are: files, or folders of them, a folder for each model. Their documents are
    matched by task and content, their targets are known answers, and the likeliest option is the conclusion where
    options were scored. `filtered`: the filter whose results are read in place of the responses.

    Raises InputError, naming file and line, for whatever can't be read as that.
    """
    check_match(match, "--match", "auto")
    sources = find_sources(files)
    if len(sources) < FEWEST_FILES:
        got = f"{len(sources)}: {sources[0].name}" if sources else "0"
        raise InputError(f"consensus: expected at least two files or folders, one for each model, got {got}")
    if filtered is not None and not sources[0].tasks:
        raise InputError(f"--filter: expected samples of lm-eval, as nothing else has filters, got {sources[0].name}")
    prompts = Prompts()
    read = {source.name: _read(source, prompts, filtered) for source in sources}
    matches = _matches(read, match, prompts)
    if set(matches.values()) != {"number"}:
        prompts.check_letters()
    found = {name: _conclusions(one, matches, prompts) for name, one in read.items()}
    everywhere, kept = _kept(found, shared, "" not in matches)
    given = {name: len(item) for name, item in found.items()}
    found = {name: {p: keys for p, keys in item.items() if p in kept} for name, item in found.items()}
    golds = {p: gold for p, gold in _golds(matches, prompts).items() if p in kept}
    accuracy, truths = _grade(read, found, golds)
    # An empty list: asked, and no response. It agrees with nobody, and is no response that concludes nothing.
    asked = {name: {p: item.get(p, []) for p in sorted(kept)} for name, item in found.items()}
    ranking = _ranked(asked, prompts, truths, matches)
    # Of two that agree as often, who answered more comes first.
    rows = sorted(ranking.rows, key=lambda r: (1.0 if r.consensus is None else -r.consensus, -given[r.name]))
    tasks = tuple(task for task in matches if task)
    by_task = {}
    for task in tasks if len(tasks) > 1 else ():
        its = {p for p in kept if prompts.tasks[p] == task}
        alone = {name: {p: keys for p, keys in item.items() if p in its} for name, item in asked.items()}
        one = _ranked(alone, prompts, {p: key for p, key in truths.items() if p in its}, {task: matches[task]})
        by_task[task] = _weakened(one, len(everywhere & its), len(its), True).verdict
    ranking = _weakened(replace(ranking, rows=tuple(rows)), len(everywhere), len(kept), bool(tasks))
    pool_right = sum(ranking.pooled.get(p) == key for p, key in truths.items() if key is not None)
    return RankedFiles(
        ranking, _told(matches), len(prompts.number), len(everywhere), len(kept),
        {name: len(item) for name, item in found.items()},
        {name: _share(key is not None for keys in item.values() for key in keys) for name, item in found.items()},
        accuracy, len(golds), pool_right, tasks, by_task, tuple(_notes(read, found, prompts, kept, shared, matches)),
    )  # fmt: skip


def _ranked(
    asked: Mapping[str, Conclusions], prompts: Prompts, truths: Mapping[int, str | None], matches: Mapping[str, str]
) -> Ranking:
    prose = "text" if "text" in matches.values() else ""
    return consensus(asked, options=prompts.options, audit=truths, match=prose)


def _read(source: Source, prompts: Prompts, filtered: str | None) -> AnswerFile:
    return read_samples(source, prompts, filtered) if source.file is None else read_answers(source.file, prompts)


def _matches(read: Mapping[str, AnswerFile], match: str, prompts: Prompts) -> dict[str, str]:
    """By task, how its conclusions are read: an option that was scored is a letter, whatever `match` is."""
    scored = {task for task, (is_scored, _) in prompts.scored.items() if is_scored}
    tasks = dict.fromkeys(task for one in read.values() for task in one.observed)
    if match not in ("auto", "choice") and scored.issuperset(tasks):
        where = listed(list(tasks))
        raise InputError(f"--match: expected auto or choice, because options were scored in {where}, got {match!r}")
    found = {}
    for task in tasks:
        if task in scored or match != "auto":
            found[task] = "choice" if task in scored else match
        else:
            found[task] = choose_match([one.observed[task] for one in read.values() if task in one.observed])
    return found


def _told(matches: Mapping[str, str]) -> str:
    if len(set(matches.values())) == 1:
        return next(iter(matches.values()))
    by_match: dict[str, list[str]] = {}
    for task, match in matches.items():
        by_match.setdefault(match, []).append(task)
    return ", ".join(f"{match} ({listed(tasks)})" for match, tasks in by_match.items())


def _conclusions(read: AnswerFile, matches: Mapping[str, str], prompts: Prompts) -> Conclusions:
    found: Conclusions = {}
    options = prompts.options
    for task, observed in read.observed.items():
        item = conclusions_of(observed, matches[task], options)
        if matches[task] != "number" and read.orders:
            item = {p: [read.translated(key, p, sample) for sample, key in enumerate(keys)] for p, keys in item.items()}
        found |= item
    return found


def _kept(found: Mapping[str, Conclusions], shared: bool, by_task: bool) -> tuple[Set[int], Set[int]]:
    """The prompts of all files, and those that the files are ranked on."""
    noun = "model" if by_task else "file"
    asked = {name: set(item) for name, item in found.items()}
    everywhere = set.intersection(*asked.values())
    times = Counter(p for item in asked.values() for p in item)
    twice = {p for p, count in times.items() if count > 1}
    for name, item in asked.items():
        if not item & twice:
            what = f"no two {noun}s have a prompt in common" if not twice else "has no prompt in common with the others"
            how = "task and document" if by_task else "text"
            raise InputError(f"{name}: {what}; consensus needs answers to the same prompts, which are matched by {how}")
    if shared and not everywhere:
        raise InputError(f"--shared: expected prompts that all {counted(len(found), noun)} have, got none")
    return everywhere, everywhere if shared else twice


def _golds(matches: Mapping[str, str], prompts: Prompts) -> dict[int, Gold]:
    """By prompt, its known answer. A target of lm-eval that can't be read is kept as that in `prompts`.

    Raises InputError, naming the line, if another can't be read, or two differ.
    """
    found: dict[int, tuple[KnownAnswer, Gold]] = {}
    options = prompts.options
    for answer in prompts.answers:
        match = matches[prompts.tasks.get(answer.prompt, "")]
        try:
            if answer.is_target and match == "text" and "\n" in answer.text:
                raise ValueError("a text of several lines, such as code")
            gold = read_gold(answer.text, match, answer.choices or options.get(answer.prompt))
        except ValueError as error:
            if not answer.is_target:
                raise InputError(f"{answer.where}: answer {answer.text!r} cannot be read as {match}: {error}") from None
            prompts.unread[answer.prompt] = prompts.tasks[answer.prompt]
            continue
        gold = replace(gold, key=translated(gold.key, answer.order))
        earlier, first = found.setdefault(answer.prompt, (answer, gold))
        if (gold.key, gold.expression) != (first.key, first.expression) and (gold.key is None or gold.key != first.key):
            raise InputError(
                f"{answer.where}: answer {answer.text!r}: the same prompt has the answer {earlier.text!r} in "
                f"{earlier.where}"
            )
    return {prompt: gold for prompt, (_, gold) in found.items()}


def _grade(
    read: Mapping[str, AnswerFile], found: Mapping[str, Conclusions], golds: Mapping[int, Gold]
) -> tuple[dict[str, float], dict[int, str | None]]:
    """By file, the share of the known answers that it gives, of all that there are; by prompt, the right conclusion."""
    accuracy: dict[str, float] = {}
    # Equal mathematics may have another key than the known answer.
    truths: dict[int, str | None] = {}
    for name, one in read.items():
        right: dict[int, list[bool]] = {p: [] for p in golds}
        for response in one.responses:
            if (gold := golds.get(response.prompt)) is None:
                continue
            key = found[name][response.prompt][response.sample]
            is_right = key is not None and key == gold.key
            # Mathematics may be equal without equal keys.
            is_right |= gold.match == "number" and not response.truncated and gold.is_answered_by(response.text)
            right[response.prompt].append(is_right)
            if is_right:
                truths.setdefault(response.prompt, key)
        if golds:
            accuracy[name] = sum(_share(values) for values in right.values() if values) / len(golds)
    return accuracy, {p: truths.get(p, gold.key) for p, gold in golds.items()}


def _weakened(ranking: Ranking, shared: int, ranked: int, by_task: bool) -> Ranking:
    """The ranking, its verdict no better than the prompts that all files have allow."""
    if shared == ranked:
        return ranking
    limits = zip(SHARED, TELLING, strict=True)
    level = sum(shared >= share * ranked and shared >= count for share, count in limits)
    if level == len(SHARED):
        return ranking
    where = "the samples of all models" if by_task else "all files"
    reason = f"only {shared} of {counted(ranked, 'prompt')} are in {where}; the others say nothing of who lacks them"
    advice = tuple(dict.fromkeys((SAME_PROMPTS, *ranking.advice)))
    verdict = _LEVELS[min(level, _LEVELS.index(ranking.verdict))]
    return replace(ranking, verdict=verdict, reasons=(reason, *ranking.reasons), advice=advice)


def _notes(
    read: Mapping[str, AnswerFile],
    found: Mapping[str, Conclusions],
    prompts: Prompts,
    kept: Set[int],
    shared: bool,
    matches: Mapping[str, str],
) -> Iterator[str]:
    for name, item in found.items():
        if missing := len(kept) - len(item):
            yield f"{name}: lacks {missing} of {counted(len(kept), 'prompt')}, which count as not answered"
    if missing := len(prompts.number) - len(kept):
        noun = "file" if "" in matches else "model"
        where = f"that not all {noun}s have" if shared else f"that only one {noun} has"
        yield f"left out: {counted(missing, 'prompt')} {where}"
    for name, one in read.items():
        responses = one.responses
        if (cut := sum(response.truncated for response in responses)) > CUT * len(responses):
            yield f"{name}: {cut} of {counted(len(responses), 'response')} cut off, which conclude nothing"
        yield from one.notes
    for names in _alike(found):
        yield f"{', '.join(names[:-1])} and {names[-1]} conclude the same on every prompt, and count as one"
    if prompts.reordered:
        what = counted(len(prompts.reordered), "prompt")
        yield f"choices of {what} come in different orders; letters stand for the choices of their own line"
    yield from differences(read, prompts, kept)
    for task, match in matches.items():
        likely = choose_match([one.observed[task] for one in read.values() if task in one.observed])
        if match == "text" and likely != "text":
            yield f"{task + ': ' if task else ''}most responses end in a {likely}, which --match {likely} would read"
        golds = {a.prompt: a.text for a in prompts.answers if prompts.tasks.get(a.prompt, "") == task}
        yield from unlike(list(golds.values()), match)


def _alike(found: Mapping[str, Conclusions]) -> Iterator[list[str]]:
    """The models that conclude the same throughout, where there are two or more."""
    groups: dict[str, list[str]] = {}
    for name, item in found.items():
        groups.setdefault(repr(sorted(item.items())), []).append(name)
    yield from (names for names in groups.values() if len(names) > 1)


def _share(values: Iterable[bool]) -> float:
    found = list(values)
    return sum(found) / len(found)
