"""Lines of files of answers -> prompts, responses and known answers, matched across files by the prompts' text.

Files may offer the choices of a question in different orders, so that a letter means what it means in its own line.
`Prompts` keeps the order that came first; letters of other lines are translated into it by the choices' texts.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nex_merge.answer_files.endings import Endings, read_cut
from nex_merge.answers.conclusions import Key
from nex_merge.errors import InputError
from nex_merge.records import Observation, Prompt, Response
from nex_merge.setup.options import options_of
from nex_merge.setup.paths import check_readable
from nex_merge.setup.row_prompts import ASKED_WITH, prompt_of
from nex_merge.setup.strict import is_number
from nex_merge.setup.textfiles import check_unicode, collect, file_type, read_jsonl
from nex_merge.setup.yaml_files import as_yaml
from nex_merge.wording import counted

# A line's choices: for each, its place among those that came first with the prompt. None: in the same order.
Order = tuple[int, ...] | None


@dataclass(frozen=True)
class KnownAnswer:
    """The `answer` of a line, with what it takes to read a letter or a choice's text in it."""

    where: str
    prompt: int
    text: str
    choices: tuple[str, ...]  # of its own line, in its own order
    order: Order
    is_target: bool = False  # of a task of lm-eval, whose targets are made for its own metrics: some are no answers


@dataclass
class Prompts:
    """The prompts of all files, in the order in which they first occur."""

    number: dict[str, int] = field(default_factory=dict)
    choices: dict[int, tuple[str, tuple[str, ...]]] = field(default_factory=dict)  # by prompt: (place, texts)
    reordered: dict[int, str] = field(default_factory=dict)  # by prompt: a place where they are in another order
    without: dict[int, str] = field(default_factory=dict)  # by prompt: a place that names none
    answers: list[KnownAnswer] = field(default_factory=list)
    # Of lm-eval's documents alone.
    tasks: dict[int, str] = field(default_factory=dict)  # by prompt
    scored: dict[str, tuple[bool, str]] = field(default_factory=dict)  # by task: (whether options are scored, a file)
    unread: dict[int, str] = field(default_factory=dict)  # by prompt: the task, where its target is no answer
    reworded: set[int] = field(default_factory=set)  # prompts that are other texts to other models
    _wording: dict[int, Any] = field(default_factory=dict)
    _known: set[tuple[int, str, tuple[str, ...], Order]] = field(default_factory=set)

    def number_of(self, key: str, task: str = "") -> int:
        """The number of the prompt with this key, which is a new one if there is none yet."""
        number = self.number.setdefault(key, len(self.number))
        if task:
            self.tasks[number] = task
        return number

    def add_answer(self, answer: KnownAnswer) -> None:
        """Keep a known answer, once for all files that have it."""
        key = (answer.prompt, answer.text, answer.choices, answer.order)
        if key not in self._known:
            self._known.add(key)
            self.answers.append(answer)

    def see_wording(self, number: int, digest: Any) -> None:
        """Keep that a document's prompt is another text to another model. `digest`: of that text, if it is known."""
        if self._wording.setdefault(number, digest) != digest:
            self.reworded.add(number)

    @property
    def options(self) -> dict[int, int]:
        """By prompt, how many choices it has, where that is known."""
        return {number: len(texts) for number, (_, texts) in self.choices.items()}

    def check_letters(self) -> None:
        """Raise InputError if a line names no choices to a prompt whose choices come in different orders."""
        for number in self.reordered.keys() & self.without.keys():
            raise InputError(
                f"{self.without[number]}: expected choices, because {self.reordered[number]} has those of this prompt "
                f"in another order than {self.choices[number][0]}, so that a letter alone can mean either"
            )


@dataclass(frozen=True)
class AnswerFile:
    """One model's answers."""

    observed: Mapping[str, Observation]  # by task of lm-eval; "" for others
    orders: Mapping[tuple[int, int], Order]  # by (prompt, sample), of those that are in another order
    notes: tuple[str, ...]
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by task: how responses were generated

    @property
    def responses(self) -> list[Response]:
        return [response for observed in self.observed.values() for response in observed.responses]

    def translated(self, key: Key | None, prompt: int, sample: int) -> Key | None:
        """What a response concludes, its letter as that of the same choice in the order that came first."""
        return translated(key, self.orders.get((prompt, sample)))


def translated(key: Key | None, order: Order) -> Key | None:
    """A letter as that of the same choice in the order that came first; anything else as it is."""
    if order is None or key is None or len(key) != 1:
        return key
    at = ord(key.upper()) - ord("A")
    if not 0 <= at < len(order):
        return key
    letter = chr(ord("A") + order[at])
    return letter if key.isupper() else letter.lower()


def check_jsonl(file: Path) -> None:
    """Raise InputError unless `file` can be opened and is not of another kind."""
    check_readable(file, "consensus", "a JSONL file with prompt, and response or responses")
    if (kind := file_type(file)) in (".csv", ".tsv", ".parquet", ".txt", ".md"):
        raise InputError(f"{file}: expected a JSONL file with prompt, and response or responses, got a {kind} file")


def read_answers(file: Path, prompts: Prompts) -> AnswerFile:
    """Read one file, and add its prompts and known answers to `prompts`.

    Raises InputError, naming file and line, for whatever can't be read.
    """
    check_jsonl(file)
    texts: dict[int, list[tuple[str, bool]]] = {}
    orders: dict[tuple[int, int], Order] = {}
    endings, lines = Endings(), Counter[int]()

    def read(where: str, data: Mapping[str, Any]) -> None:
        prompt = prompt_of({key: value for key, value in data.items() if key not in ASKED_WITH}, where)
        number = prompts.number_of(_question(prompt))
        lines[number] += 1
        choices, order = keep_choices(where, options_of(data), number, prompts)
        _keep_answer(where, data, number, choices, order, prompts)
        given = _texts(where, data)
        samples = texts.setdefault(number, [])
        orders.update({(number, len(samples) + i): order for i in range(len(given)) if order is not None})
        samples.extend(zip(given, read_cut(data, where, len(given), endings), strict=True))

    collect(read_jsonl(file), read)
    if not texts:
        raise InputError(f"{file}: expected at least one prompt with a response, got none")
    responses = [
        Response(number, sample, (), (), text, cut)
        for number in sorted(texts)
        for sample, (text, cut) in enumerate(texts[number])
    ]
    notes = [*endings.notes(str(file))]
    if repeated := sum(count > 1 for count in lines.values()):
        what = counted(repeated, "prompt")
        notes.append(f"{file}: {what} on several lines, which count as samples")
    return AnswerFile({"": Observation(responses)}, orders, tuple(notes))


def _question(prompt: Prompt) -> str:
    """What the same prompt is in every file, whether written as `prompt` or as `messages`."""
    return json.dumps([{**message, "content": message["content"].strip()} for message in prompt.messages])


def keep_choices(
    where: str, found: Sequence[str] | None, number: int, prompts: Prompts
) -> tuple[tuple[str, ...], Order]:
    """A line's choices, if it has any, as they are compared, and their order if it is another than came first."""
    if found is None:
        prompts.without.setdefault(number, where)
        return (), None
    given = tuple(" ".join(text.split()) for text in found)
    place, first = prompts.choices.setdefault(number, (where, given))
    if given == first:
        return given, None
    if sorted(given) != sorted(first) or len(set(first)) < len(first):
        raise InputError(
            f"{where}: choices: expected those of the same prompt in {place} ({as_yaml(list(first))[:60]}), got "
            f"{as_yaml(list(given))[:60]}. If it is another question, write its choices into the prompt"
        )
    prompts.reordered.setdefault(number, where)
    return given, tuple(first.index(text) for text in given)


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


def _keep_answer(
    where: str, data: Mapping[str, Any], number: int, choices: Sequence[str], order: Order, prompts: Prompts
) -> None:
    answer = data.get("answer")
    if answer is None:
        return
    text = str(answer) if is_number(answer) else answer
    if not isinstance(text, str):
        raise InputError(f'{where}: expected "answer" with text or a number, got {as_yaml(answer)}')
    prompts.add_answer(KnownAnswer(where, number, text, tuple(choices), order))
