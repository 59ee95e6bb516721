"""Labelled prompts, from files or a family's built-in problems, and grading of responses."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

from nex_merge.answers.conclusions import check_match, is_unfinished, read_gold
from nex_merge.errors import InputError
from nex_merge.records import Prompt, Response
from nex_merge.setup.options import options_of
from nex_merge.setup.paths import check_readable
from nex_merge.setup.prompt_rows import Columns, file_rows
from nex_merge.setup.row_formats import recognised
from nex_merge.setup.strict import is_number
from nex_merge.setup.textfiles import check_text, collect, file_type, parse_number
from nex_merge.setup.yaml_files import as_yaml
from nex_merge.wording import counted

# Entry point group. Name: a family; object: a function that makes `count` problems of each kind.
PROBLEMS = "nex_merge.problems"
# From this share of the known answers on it is said that they are read otherwise than they look.
MANY = 0.25
_LETTER = re.compile(r"\(?[A-Z][).]?")


@dataclass(frozen=True)
class Item:
    """One labelled prompt. `is_right`: whether the text of a response is right."""

    prompt: Prompt
    answer: str
    is_right: Callable[[str], bool]
    kind: str = ""


def matcher(match: str, answer: str, options: Sequence[str] | None = None) -> Callable[[str], bool]:
    """A function: does a text conclude the answer? Raises ValueError if no text could.

    options: those of a multiple-choice question, where they are known.
    """
    return read_gold(answer, match, options).is_answered_by


def labelled(where: str, data: Mapping[str, Any], prompt: Prompt, match: str) -> Item:
    """One line's prompt with its answer. Raises InputError, naming the line, if no text could match the answer."""
    answer = data.get("answer")
    if is_number(answer):
        answer = str(answer)
    if not isinstance(answer, str) or not answer.strip():
        raise InputError(f'{where}: expected "answer" with text or a number, got {as_yaml(answer)}')
    check_text(answer, f"{where}: answer")
    try:
        return Item(prompt, answer, matcher(match, answer, options_of(data)))
    except ValueError as error:
        raise InputError(f"{where}: answer {answer!r} cannot be read as {match}: {error}") from None


def unlike(answers: Sequence[str], match: str) -> Iterator[str]:
    """What is said of known answers that are read as texts though many of them are numbers or letters."""
    if match != "text":  # other ways to read refuse what they can't read
        return
    numbers = sum(parse_number(answer.replace(",", "")) is not None for answer in answers)
    letters = sum(_LETTER.fullmatch(answer.strip()) is not None for answer in answers)
    for count, what, way in ((numbers, "numbers", "number"), (letters, "letters of choices", "choice")):
        if count >= MANY * len(answers) > 0:
            yield (
                f"{count} of {counted(len(answers), 'known answer')} are {what}, but responses are compared as texts; "
                f"--match {way} reads which {way} a response concludes"
            )


def load_items(file: Path, match: str) -> list[Item]:
    """Labelled prompts, from any file that prompts come from and that has answers beside them.

    Raises InputError naming the line.
    """
    check_match(match)
    check_readable(file, "--data", "a JSONL file")
    columns = Columns(labels=True)
    rows = None if file_type(file) == ".txt" else file_rows(file, columns)
    if rows is None:
        raise InputError(
            f'--data: expected JSONL, a line {{"prompt": ..., "answer": ...}} per problem, or the same as JSON, CSV or '
            f"Parquet, got {file}"
        )

    def read(where: str, row: Any) -> Item:
        found = recognised(row, where, known=columns.known)
        prompt = found.prompt(where)
        return labelled(where, {**row, "answer": found.answer}, prompt, match)

    items = collect(rows, read)
    if not items:
        raise InputError(f"--data: {file} contains no labelled prompts")
    return items


class Problem(Protocol):
    """A labelled problem of a family. Entry points of `nex_merge.problems` return lists of these."""

    @property
    def kind(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def answer(self) -> str: ...
    def is_right(self, response: str) -> bool: ...


def builtin_items(family: str, count: int, source: str) -> list[Item]:
    """`count` held-out problems of each kind of a family.

    Raises InputError, naming `source`, if the family has none.
    """
    families = _families()
    if family not in families:
        raise InputError(f"{source}: expected a family with built-in problems ({', '.join(families)}), got {family!r}")
    problems: Sequence[Problem] = families[family].load()(count)
    return [
        Item(Prompt(({"role": "user", "content": p.prompt},), p.prompt), p.answer, p.is_right, p.kind) for p in problems
    ]


# Text of a response -> for each of its lines: explore, exploit or None, and whether it follows the problems' grammar.
LineLabels = Callable[[str], Iterable[tuple[str | None, bool]]]


def line_labels_of(family: str) -> LineLabels:
    """How lines of responses to a family's built-in problems are labelled: `line_labels` of `grammar`, beside them."""
    package = _families()[family].module.rpartition(".")[0]
    return import_module(f"{package}.grammar").line_labels


def _families() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=PROBLEMS)}


def judge(items: Sequence[Item], responses: Sequence[Response], thinking: bool) -> list[bool]:
    """Whether each response is right. `thinking`: whether the prompts enable thinking."""
    # A response cut off while thinking has no answer, whatever its last words are.
    unfinished = [is_unfinished(r.text, r.truncated, thinking) for r in responses]
    return [not u and item.is_right(r.text) for item, r, u in zip(items, responses, unfinished, strict=True)]
