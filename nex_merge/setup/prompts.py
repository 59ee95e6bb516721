"""Prompt files -> Prompts. Knows file formats; knows nothing of chat templates and models."""

import difflib
import itertools
import json
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError
from nex_merge.records import Prompt
from nex_merge.setup import textfiles
from nex_merge.setup.config import PromptsConfig, find_file
from nex_merge.setup.explain import nearest
from nex_merge.setup.paths import check_readable
from nex_merge.setup.textfiles import check_text, check_unicode
from nex_merge.setup.yaml_files import as_yaml

_FORMATS = ".jsonl, .txt, .csv or .parquet"
_ROLES = ("system", "user", "assistant", "tool")
# What programs write into a CSV for a value that is missing. Other formats have a null for it.
_MISSING = ("none", "null", "na", "n/a", "nan", "<na>", "#n/a", "nil")
# What a line may have beside its prompt. Other keys are the user's own.
_OPTIONS = ("choices", "options", *string.ascii_uppercase)
_BESIDE = ("messages", "system", "tools", "documents", "chat_template_kwargs", *_OPTIONS)
_SETTING = "a setting of all prompts: prompts.thinking"
# What would change what a model is asked, and is not taken.
_REFUSED = {
    "functions": "write them as tools",
    "function_call": "leave it out; the model chooses",
    "tool_choice": "leave it out; the model chooses",
    "response_format": "leave it out, and ask for the format in the prompt",
    "enable_thinking": _SETTING,
    "chat_template": "the tokenizer's is used",
    "images": "prompts are text",
    "image": "prompts are text",
}
# Of `chat_template_kwargs`: what the rendering itself sets.
_RESERVED = {
    "enable_thinking": _SETTING,
    "tools": "a key of the line itself",
    "documents": "a key of the line itself",
    **dict.fromkeys(
        ("messages", "conversation", "chat_template", "tokenize", "add_generation_prompt", "continue_final_message",
         "return_dict", "return_tensors", "padding", "truncation", "max_length", "strftime_now", "raise_exception"),
        "set by nex-merge",
    ),
}  # fmt: skip
# What a model was asked with, of which its answers alone say nothing.
ASKED_WITH = ("tools", "documents", "chat_template_kwargs", *_REFUSED)
# Rows of a Parquet file that are read at once.
_ROWS = 256


def load_prompts(config: PromptsConfig) -> tuple[Prompt, ...]:
    """The prompts of `config.file`, the first `config.limit` of them; nothing beyond is read.

    Raises InputError, with file and line, if the file is missing, empty or not in one of the supported formats, or
    prompts are not text that a person can have meant.
    """
    path = find_file(config.file) or Path(config.file)
    if not path.is_absolute() and not path.exists():
        raise InputError(
            f"prompts.file: no such file: {config.file!r} (relative paths start at the working directory: {Path.cwd()})"
        )
    check_readable(path, "prompts.file", f"a file of type {_FORMATS}")
    kind = textfiles.file_type(path)
    rows = _rows(path, kind, config)
    if rows is None:
        hint = {".json": ". Convert a JSON array: jq -c '.[]' FILE > FILE.jsonl", ".tsv": ". Save it with commas"}
        raise InputError(f"prompts.file: expected a file of type {_FORMATS}, got {path}{hint.get(kind, '')}")

    def read(where: str, row: str | Mapping[str, Any]) -> Prompt:
        if isinstance(row, str):
            return _user(row, where)
        return prompt_of(_filled(row, where, config) if kind == ".csv" else row, where, config.column, "prompts.column")

    prompts = textfiles.collect(itertools.islice(rows, config.limit), read)
    if not prompts:
        raise InputError(f"prompts.file: expected at least one prompt, got none in {path}")
    return tuple(prompts)


def _rows(path: Path, kind: str, config: PromptsConfig) -> Iterator[tuple[str, Any]] | None:
    """(place for messages, row) of a file of prompts; None if it is of another type."""
    column = config.column or "prompt"
    readers: dict[str, Callable[[], Iterator[tuple[str, Any]]]] = {
        ".jsonl": lambda: textfiles.read_jsonl(path),
        ".txt": lambda: textfiles.read_lines(path),
        ".csv": lambda: _csv_rows(path, column),
        ".parquet": lambda: _parquet_rows(path, column, config.limit),
    }
    return readers[kind]() if kind in readers else None


def prompt_of(item: Mapping[str, Any], where: str, column: str | None = None, setting: str = "") -> Prompt:
    """The prompt of one line. `column`: the key that has it; None: `prompt`, or `messages`.

    `setting`: the setting that names another key, if there is one. Raises InputError if the line holds no prompt, or
    something that would change what a model is asked and is not taken.
    """
    key = column or "prompt"
    text, messages = item.get(key), item.get("messages")
    if column is None and text is not None and messages is not None:
        way = f", or name it: {setting}" if setting else ""
        raise InputError(f'{where}: expected "prompt" or "messages", got both; keep the one that is meant{way}')
    if _is_conversation(text):
        messages, text = text, None
    elif column is not None and text is not None:
        messages = None
    choices = tuple(options_of(item) or ())
    if isinstance(text, str):
        return _with_beside(replace(_user(text, f"{where}: {key}"), choices=choices), item, where)
    if text is None and messages is not None:
        prompt = Prompt(_messages(messages, f"{where}: {'messages' if item.get(key) is None else key}"))
        return _with_beside(replace(prompt, where=where, choices=choices), item, where)
    if key in item:
        shown = f"bytes ({text[:20]!r})" if isinstance(text, bytes) else as_yaml(text)
        raise InputError(f"{where}: {key}: expected text, got {shown}")
    hint = f". To use another key, set {setting}." if setting and item else "."
    raise InputError(
        f'{where}: expected text in "{key}", or a list of {{"role", "content"}} in "messages", got '
        f"{'the keys ' + ', '.join(item) if item else 'an empty object'}{hint}"
        f"{_misspelt(key, item)}"
    )


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, Mapping) for part in value)


def options_of(data: Mapping[str, Any]) -> list[str] | None:
    """The options of a line's multiple-choice question; None where it names none.

    They are in `choices` or `options`, as data sets hold them: a list of texts, a mapping of letters to texts, or a
    mapping with a list under `text`; or in keys of their own, A, B and so on. What a server returned, under `choices`
    too, is none.
    """
    lettered = [data[letter] for letter in itertools.takewhile(lambda letter: letter in data, string.ascii_uppercase)]
    given = data.get("choices", data.get("options", lettered))
    if isinstance(given, Mapping):
        given = given.get("text", [given[key] for key in sorted(given, key=str.upper)])
    texts = given
    if not isinstance(texts, list) or not 2 <= len(texts) <= len(string.ascii_uppercase):
        return None
    if any(isinstance(text, Mapping) and ("finish_reason" in text or "message" in text) for text in texts):
        return None
    return [str(text) for text in texts]


def with_options(prompt: Prompt, config: PromptsConfig) -> Prompt:
    """A prompt as it is asked: its options follow it if `prompts.options` is appended."""
    if not prompt.choices or config.options == "shown":
        return prompt
    *before, last = prompt.messages
    lines = [f"{letter}. {text}" for letter, text in zip(string.ascii_uppercase, prompt.choices, strict=False)]
    raw, asked = (None if text is None else "\n".join([text, *lines]) for text in (prompt.raw, last["content"]))
    return replace(prompt, messages=(*before, {**last, "content": asked}), raw=raw)


def shows_options(prompt: Prompt) -> bool:
    """Whether the text of a prompt has all its options, one after another, each as words of their own."""
    text = " ".join(" ".join(str(message["content"]) for message in prompt.messages).split()).casefold()
    at = 0
    for choice in prompt.choices:
        option = " ".join(choice.split()).casefold()
        found = re.compile(rf"(?<!\w){re.escape(option)}(?!\w)").search(text, at)
        if found is None:
            return False
        at = found.end()
    return True


def _misspelt(key: str, item: Mapping[str, Any]) -> str:
    """A key of the line that is nearly the one that was looked for."""
    close = difflib.get_close_matches(key, map(str, item), 1)
    return f" Is {close[0]!r} a misspelt {key!r}?" if close else ""


def _messages(messages: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(messages, list) or not messages:
        raise InputError(f'{where}: expected a list of {{"role", "content"}}, got {as_yaml(messages)}')
    found = [_message(message, f"{where}.{number}") for number, message in enumerate(messages)]
    if found[-1]["role"] not in ("user", "tool"):
        raise InputError(
            f"{where}: expected the last message to be the user's, got the {found[-1]['role']}'s. Remove what "
            "follows the question"
        )
    if not found[-1]["content"].strip():
        raise InputError(f"{where}: expected text in the last message, got {found[-1]['content']!r}")
    return tuple(found)


def _message(message: Any, at: str) -> dict[str, Any]:
    """A message as the chat template takes it. What it has beside role and content, such as tool calls, is kept."""
    if not isinstance(message, Mapping):
        raise InputError(f'{at}: expected {{"role", "content"}}, got {as_yaml(message)}')
    given = {key: value for key, value in message.items() if value is not None}
    role, calls = given.get("role"), given.get("tool_calls")
    if role not in _ROLES:
        raise InputError(f"{at}.role: expected {', '.join(_ROLES[:-1])} or {_ROLES[-1]}, got {as_yaml(role)}")
    if calls is not None and not (role == "assistant" and _is_conversation(calls)):
        raise InputError(f"{at}.tool_calls: expected a list of calls of the assistant, got {as_yaml(calls)}")
    if "function_call" in given:
        raise InputError(f"{at}.function_call: not taken; write it as tool_calls")
    content = given.get("content", "" if calls else None)
    if not isinstance(content, str):
        raise InputError(f"{at}.content: expected text, got {as_yaml(content)}")
    check_text(content, f"{at}.content")
    _check_nested({key: value for key, value in given.items() if key != "content"}, at)
    return {"role": role, "content": content, **{k: v for k, v in given.items() if k not in ("role", "content")}}


def _with_beside(prompt: Prompt, item: Mapping[str, Any], where: str) -> Prompt:
    """A line's prompt with its system message and what else it gives to the chat template."""
    for key, way in _REFUSED.items():
        if item.get(key):
            raise InputError(f"{where}: {key}: not taken in a line; {way}")
    given: dict[str, Any] = {}
    for key in ("tools", "documents"):
        if value := item.get(key):
            if not _is_conversation(value):
                quoted = "; write it as JSON, without quotes around it" if isinstance(value, str) else ""
                raise InputError(f"{where}: {key}: expected a list of objects, got {as_yaml(value)}{quoted}")
            given[key] = value
    more = item.get("chat_template_kwargs") or {}
    if not isinstance(more, Mapping):
        raise InputError(f"{where}: chat_template_kwargs: expected an object, got {as_yaml(more)}")
    for key in more:
        if key in _RESERVED:
            raise InputError(f"{where}: chat_template_kwargs.{key}: {_RESERVED[key]}; leave it out here")
    given |= more
    _check_nested(given, where)
    return replace(_with_system(prompt, item.get("system"), where), template=given)


def _with_system(prompt: Prompt, system: Any, where: str) -> Prompt:
    if system is None or system == "":
        return prompt
    if not isinstance(system, str):
        raise InputError(f"{where}: system: expected text, got {as_yaml(system)}")
    check_text(system, f"{where}: system")
    if prompt.messages[0]["role"] == "system":
        raise InputError(f"{where}: system: the messages have a system message of their own; keep one of them")
    return replace(prompt, messages=({"role": "system", "content": system}, *prompt.messages))


def _check_nested(value: Any, where: str) -> None:
    """Raise InputError if texts within a value are cut in the middle of a character."""
    check_unicode(json.dumps(value, ensure_ascii=False, default=str), where)


def _csv_rows(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    for where, row in textfiles.read_csv(path, column):
        if not isinstance(row, InputError):
            _check_column(path, column, list(row))
        yield where, row


def _filled(row: Mapping[str, str], where: str, config: PromptsConfig) -> Mapping[str, Any]:
    """The fields of a row of CSV that a prompt is made of. An empty one is none."""
    column = config.column or "prompt"
    if row[column].strip().lower() in _MISSING:
        raise InputError(
            f"{where}: {column}: expected text, got {row[column]!r}, which programs write for a missing value. "
            "Remove the row; a prompt of just this word can be given as JSONL"
        )
    beside = {key: row[key] for key in (*_BESIDE, *_REFUSED) if row.get(key, "").strip() and key != column}
    for key in beside:
        if key not in ("system", *_OPTIONS) and not (key == "messages" and config.column):
            raise InputError(f"{where}: {key}: not taken from a CSV file; give the prompts as JSONL")
    return {column: row[column], **{key: _list_in(text) for key, text in beside.items() if key != "messages"}}


def _list_in(text: str) -> Any:
    """A list that a field of CSV spells as JSON; other text as it is."""
    try:
        value = json.loads(text) if text.lstrip().startswith("[") else text
    except (ValueError, RecursionError):
        return text
    return value


def _parquet_rows(path: Path, column: str, limit: int | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            names = file.schema_arrow.names
            if column != "prompt" or "messages" not in names:
                _check_column(path, column, names)
            columns = [name for name in dict.fromkeys((column, *_BESIDE, *_REFUSED)) if name in names]
            number = 0
            for batch in file.iter_batches(min(limit or _ROWS, _ROWS), columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None


def _check_column(path: Path, column: str, columns: Sequence[str]) -> None:
    if column not in columns:
        known = [name for name in columns if name]
        raise InputError(
            f"prompts.column: expected a column of {path}, got {column!r}.{nearest(column, known, 'columns')} Name the "
            "one with the prompts (--set prompts.column=NAME)"
        )


def _user(text: str, where: str) -> Prompt:
    if not text.strip():
        raise InputError(f"{where}: expected non-empty text, got {text!r}")
    check_text(text, where)
    return Prompt(({"role": "user", "content": text},), raw=text, where=where)
