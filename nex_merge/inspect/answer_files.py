"""Files of models' answers to the same prompts -> the models ranked by consensus. No model is loaded."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nex_merge.answers.conclusions import Gold, check_match, conclude, read_gold
from nex_merge.errors import InputError
from nex_merge.measures.concluding import choose_match, conclusions_of
from nex_merge.measures.ranking import Ranking, consensus
from nex_merge.records import Observation, Response
from nex_merge.setup.paths import check_readable
from nex_merge.setup.prompts import options_of, read_jsonl
from nex_merge.setup.strict import is_number
from nex_merge.setup.textfiles import check_unicode, file_type
from nex_merge.setup.yaml_files import as_yaml

FEWEST_FILES = 2
# A prompt as files have it: its text, or its messages as JSON.
Question = str


@dataclass
class _Prompts:
    """The prompts of all files, in the order in which they first occur."""

    number: dict[Question, int] = field(default_factory=dict)
    options: dict[int, int] = field(default_factory=dict)
    answers: dict[int, tuple[str, str]] = field(default_factory=dict)  # by prompt: (place, answer)


@dataclass(frozen=True)
class RankedFiles:
    """The ranking of files of answers, with what it rests on."""

    ranking: Ranking
    match: str  # how conclusions were read
    prompts: int  # in any of the files
    shared: int  # in all of them
    concluded: Mapping[str, float]  # by file: share of the responses that conclude something
    accuracy: Mapping[str, float]  # by file: share of the responses that are right; empty without known answers
    labelled: int  # prompts with a known answer


def rank_files(files: Sequence[Path], match: str = "auto") -> RankedFiles:
    """Rank models by files of their answers: JSONL with `prompt` or `messages`, and `response` or `responses`.

    Lines with the same prompt are samples of it. With an `answer`, known answers measure accuracy and audit the
    verdict; the ranking itself never uses them. `choices` or `options` say how many options a question has.

    Raises InputError, naming file and line, for whatever can't be read as that.
    """
    if match != "auto":
        check_match(match)
    if len(files) < FEWEST_FILES:
        raise InputError(f"consensus: expected at least two files, one for each model, got {len(files)}")
    names = [str(file) for file in files]
    for i, file in enumerate(files):
        if any(file.resolve() == other.resolve() for other in files[:i]):
            raise InputError(f"{file}: given twice; one model's answers would count as two models that agree")
    prompts = _Prompts()
    observed = {name: _read(file, prompts) for name, file in zip(names, files, strict=True)}
    chosen = choose_match(list(observed.values())) if match == "auto" else match
    conclusions = {name: conclusions_of(seen, chosen, prompts.options) for name, seen in observed.items()}
    asked = [set(item) for item in conclusions.values()]
    if not any(one & other for i, one in enumerate(asked) for other in asked[:i]):
        raise InputError(
            f"{names[0]}, {names[1]}: no two files have a prompt in common; consensus needs the same prompts"
        )
    golds = {p: _gold(place, answer, chosen, prompts.options.get(p)) for p, (place, answer) in prompts.answers.items()}
    right, truths = _grade(observed, golds, chosen, prompts.options)
    ranking = consensus(conclusions, options=prompts.options, audit=truths, match=chosen)
    return RankedFiles(
        ranking,
        chosen,
        len(prompts.number),
        len(set.intersection(*asked)),
        {name: _share(key is not None for keys in item.values() for key in keys) for name, item in conclusions.items()},
        {name: _share(values) for name, values in right.items() if values},
        len(golds),
    )


def _read(file: Path, prompts: _Prompts) -> Observation:
    check_readable(file, "consensus", "a JSONL file with prompt, and response or responses")
    if (kind := file_type(file)) in (".csv", ".tsv", ".parquet", ".txt", ".md"):
        raise InputError(f"{file}: expected a JSONL file with prompt, and response or responses, got a {kind} file")
    texts: dict[int, list[tuple[str, bool]]] = {}
    for where, data, prompt in read_jsonl(file, "prompt"):
        question = prompt.raw if prompt.raw is not None else json.dumps([dict(item) for item in prompt.messages])
        number = prompts.number.setdefault(question, len(prompts.number))
        if (options := options_of(data)) is not None:
            prompts.options[number] = len(options)
        _keep_answer(where, data, number, prompts)
        texts.setdefault(number, []).extend((text, data.get("truncated") is True) for text in _texts(where, data))
    if not texts:
        raise InputError(f"{file}: expected at least one prompt with a response, got none")
    return Observation(
        [
            Response(number, sample, (), (), text, truncated)
            for number in sorted(texts)
            for sample, (text, truncated) in enumerate(texts[number])
        ]
    )


def _texts(where: str, data: Mapping[str, Any]) -> list[str]:
    given = [data[key] for key in ("response", "responses") if data.get(key) is not None]
    if len(given) != 1:
        got = "both" if given else "neither"
        raise InputError(f'{where}: expected "response" with a text, or "responses" with a list of texts, got {got}')
    texts = [given[0]] if "responses" not in data or data["responses"] is None else given[0]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{where}: expected texts as responses, got {as_yaml(given[0])[:60]}")
    for number, text in enumerate(texts):
        check_unicode(text, f"{where}: responses.{number}")
    return texts


def _keep_answer(where: str, data: Mapping[str, Any], number: int, prompts: _Prompts) -> None:
    answer = data.get("answer")
    if answer is None:
        return
    text = str(answer) if is_number(answer) else answer
    if not isinstance(text, str):
        raise InputError(f'{where}: expected "answer" with text or a number, got {as_yaml(answer)}')
    place, earlier = prompts.answers.setdefault(number, (where, text))
    if earlier.strip() != text.strip():
        raise InputError(f"{where}: answer {text!r}: the same prompt has the answer {earlier!r} in {place}")


def _gold(where: str, answer: str, match: str, options: int | None) -> Gold:
    try:
        return read_gold(answer, match, options)
    except ValueError as error:
        raise InputError(f"{where}: answer {answer!r} cannot be read as {match}: {error}") from None


def _grade(
    observed: Mapping[str, Observation], golds: Mapping[int, Gold], match: str, options: Mapping[int, int]
) -> tuple[dict[str, list[bool]], dict[int, str | None]]:
    """By file, whether each response to a prompt with a known answer is right; and by prompt, the right conclusion."""
    right: dict[str, list[bool]] = {}
    # Equal mathematics may have another key than the known answer.
    truths: dict[int, str | None] = {}
    for name, seen in observed.items():
        right[name] = []
        for response in seen.responses:
            if response.prompt in golds:
                is_right = not response.truncated and golds[response.prompt].is_answered_by(response.text)
                right[name].append(is_right)
                if is_right:
                    truths.setdefault(response.prompt, conclude(response.text, match, options.get(response.prompt)))
    return right, {p: truths.get(p, gold.key) for p, gold in golds.items()}


def _share(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found)
