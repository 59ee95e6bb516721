"""Rows as data sets have them -> rows that `prompt_of` takes, and the answers beside them.

Knows ShareGPT (`conversations`), Alpaca (`instruction`, `input`, `output`), and questions with answers or choices, as
GSM8K and MMLU have them. Nothing is guessed: what fits two of them is refused, and other columns have to be named.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nex_merge.errors import InputError
from nex_merge.records import Prompt
from nex_merge.setup.options import OPTIONS, options_of
from nex_merge.setup.row_prompts import is_conversation, prompt_of
from nex_merge.setup.yaml_files import as_yaml

# Columns that say what is right, or what a model answered. A search reads none of them.
LABELS = ("answer", "answers", "answerKey", "answer_index", "output", "label", "target", "solution", "gold")
# A question about one of these can't be answered without it, and no format says where in the prompt it goes.
_PASSAGES = ("context", "passage", "article", "story", "support")
_SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True)
class Recognised:
    """A row as `prompt_of` takes it."""

    row: Mapping[str, Any]
    column: str | None  # the key that has the prompt; None: `prompt` or `messages`
    keys: tuple[str, ...]  # what the prompt is made of
    answer: Any = None  # what the row gives as its answer; None: nothing
    lettered: bool = False  # its options are apart from the question, and belong to the prompt
    answered: bool = False  # the conversation went on with an answer, which is left out of `row`

    def prompt(self, where: str, setting: str = "") -> Prompt:
        """The row's prompt; see `prompt_of`."""
        return replace(prompt_of(self.row, where, self.column, setting), lettered=self.lettered)


@dataclass(frozen=True)
class Format:
    """Rows that can be told by their columns."""

    columns: tuple[str, ...]  # what a prompt is made of, the one with the text first
    fits: Callable[[Collection[str]], bool]  # given the columns that there are
    read: Callable[[Mapping[str, Any], str], Recognised]


def recognised(
    row: Mapping[str, Any], where: str, column: str | None = None, setting: str = "", known: Format | None = None
) -> Recognised:
    """What a row holds, by its keys. `column`: the key that has the prompt; None: one that is known.

    `setting`: the setting that names another key. `known`: the format of the table that the row is of. Raises
    InputError if the keys fit several formats, or a conversation is not one. A row of no known format is left to
    `prompt_of`, which says what is expected.
    """
    if column is None and not {"prompt", "messages"} & row.keys():
        known = known or fitting(row, where, setting)
        return known.read(row, where) if known else Recognised(row, None, ())
    key = column or ("prompt" if row.get("prompt") is not None else "messages")
    return _conversation(row, where, key, column)


def fitting(columns: Collection[str], where: str, setting: str = "") -> Format | None:
    """The format that columns belong to; None: none that is known. Raises InputError if they fit several."""
    found = [one for one in _FORMATS if one.fits(columns)]
    if len(found) > 1:
        way = f": {setting}" if setting else ""
        raise InputError(
            f"{where}: expected one column with the prompt, got {' and '.join(one.columns[0] for one in found)} "
            f"(columns: {', '.join(columns)}); name the one that is meant{way}"
        )
    return found[0] if found else None


def _conversation(row: Mapping[str, Any], where: str, key: str, column: str | None) -> Recognised:
    """A row whose prompt may be a conversation: what the assistant says last is its answer, and no part of it."""
    value, answer = row.get(key), row.get("answer")
    if value is None or not is_conversation(value):
        return Recognised(row, column, (key,), answer)
    if any("from" in part and "role" not in part for part in value):
        value = [_spoken(part, f"{where}: {key}.{number}") for number, part in enumerate(value)]
    answered = len(value) > 1 and value[-1].get("role") == "assistant"
    if answered:
        answer = value[-1].get("content") if answer is None else answer
        value = value[:-1]
    return Recognised({**row, key: value}, column, (key,), answer, answered=answered)


def _spoken(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A ShareGPT message, {from, value}, as a message of a chat."""
    speaker = part.get("from")
    if speaker not in _SPEAKERS:
        raise InputError(f"{where}.from: expected {', '.join(_SPEAKERS)}, got {as_yaml(speaker)}")
    return {"role": _SPEAKERS[speaker], "content": part.get("value")}


def _sharegpt(row: Mapping[str, Any], where: str) -> Recognised:
    if not is_conversation(row["conversations"]):
        raise InputError(
            f"{where}: conversations: expected a list of {{from, value}}, got {as_yaml(row['conversations'])}"
        )
    return _conversation(row, where, "conversations", "conversations")


def _alpaca(row: Mapping[str, Any], where: str) -> Recognised:
    text, given = row["instruction"], row.get("input")
    if given is not None and not isinstance(given, str):
        raise InputError(f"{where}: input: expected text, got {as_yaml(given)}")
    if isinstance(text, str) and given and given.strip():
        return Recognised(
            {**row, "instruction": f"{text}\n\n{given}"}, "instruction", ("instruction", "input"), row.get("output")
        )
    return Recognised(row, "instruction", ("instruction",), row.get("output"))


def _question(row: Mapping[str, Any], where: str) -> Recognised:
    """GSM8K writes an answer behind ####, its reasoning before; MMLU numbers the choices from 0."""
    options = options_of(row)
    answer = row.get("answer", row.get("answerKey"))
    _check_options(row, where, bool(options), isinstance(answer, int))
    if options and isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(options):
            raise InputError(f"{where}: answer: expected the number of a choice, 0 to {len(options) - 1}, got {answer}")
        answer = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[answer]
    elif isinstance(answer, str) and "####" in answer:
        answer = answer.rpartition("####")[2].strip()
    keys = ("question", *(key for key in OPTIONS if options and key in row))
    return Recognised(row, "question", keys, answer, lettered=bool(options))


def _check_options(row: Mapping[str, Any], where: str, found: bool, numbered: bool) -> None:
    """Raise InputError if a row gives options that are none, or texts and labels of different numbers.

    found: whether it has options; numbered: whether its answer may be the number of one. Without options and such an
    answer, an empty list says that the question has none.
    """
    key = "choices" if "choices" in row else "options"
    given = row.get(key)
    parts = [given.get(name) for name in ("text", "label")] if isinstance(given, Mapping) else []
    lengths = [len(part) for part in parts if isinstance(part, list)]
    if len(set(lengths)) > 1:
        raise InputError(
            f"{where}: {key}: expected a label for every text, got {lengths[0]} of text and {lengths[1]} of label"
        )
    if not found and (given or (numbered and given is not None)) and not is_conversation(given):
        raise InputError(
            f"{where}: {key}: expected a list of 2 to 26 options, got {as_yaml(given)}; leave {key} out where there "
            "are none"
        )


_FORMATS = (
    Format(("conversations",), lambda columns: "conversations" in columns, _sharegpt),
    Format(
        ("instruction", "input"),
        lambda columns: "instruction" in columns and not {"input", "output"}.isdisjoint(columns),
        _alpaca,
    ),
    Format(
        ("question",),
        lambda columns: (
            "question" in columns
            and not {"answer", "answerKey", "choices", "options", "A"}.isdisjoint(columns)
            and set(_PASSAGES).isdisjoint(columns)
        ),
        _question,
    ),
)
