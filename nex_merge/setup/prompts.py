"""Prompt files -> Prompts -> token ids. Knows file formats and chat templates; knows nothing of models."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from nex_merge.errors import InputError
from nex_merge.records import Prompt
from nex_merge.setup.config import PromptsConfig, find_file, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FORMATS = ".jsonl, .txt, .csv or .parquet"


def load_prompts(config: PromptsConfig) -> tuple[Prompt, ...]:
    """The prompts of `config.file`, the first `config.limit` of them.

    Raises InputError, with file and line, if the file is missing, empty or not in one of the supported formats.
    """
    path = find_file(config.file)
    if path is None or not path.is_file():
        raise InputError(
            f"prompts.file: no such file: {config.file!r} (relative paths start at the working directory: {Path.cwd()})"
        )
    readers = {".jsonl": _read_jsonl, ".txt": _read_text, ".csv": _read_table, ".parquet": _read_table}
    if path.suffix not in readers:
        raise InputError(f"prompts.file: expected a file of type {_FORMATS}, got {path}")
    prompts = readers[path.suffix](path, config.column)
    if not prompts:
        raise InputError(f"prompts.file: expected at least one prompt, got none in {path}")
    return tuple(prompts[: config.limit])


def _read_jsonl(path: Path, column: str | None) -> list[Prompt]:
    return [prompt for _, _, prompt in read_jsonl(path, column or "prompt")]


def read_jsonl(path: Path, column: str) -> Iterator[tuple[str, Mapping[str, Any], Prompt]]:
    """(location for messages, mapping, prompt) of every non-blank line of a JSONL file.

    `column`: the key of the prompt's text. Raises InputError if a line is not valid JSON or holds no prompt.
    """
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not valid JSON ({error.msg})") from None
        yield where, item, _from_mapping(item, column, where)


def _from_mapping(item: Any, column: str, where: str) -> Prompt:
    if isinstance(item, Mapping) and isinstance(item.get(column), str) and item[column].strip():
        return _user(item[column])
    messages = item.get("messages") if isinstance(item, Mapping) else None
    if isinstance(messages, list) and messages and all(_is_message(message) for message in messages):
        return Prompt(tuple({"role": message["role"], "content": message["content"]} for message in messages))
    got = f"keys {', '.join(map(str, item))}" if isinstance(item, Mapping) else type(item).__name__
    raise InputError(
        f'{where}: expected non-empty text in "{column}", or a list of {{"role", "content"}} in "messages", got {got}'
    )


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, Mapping)
        and isinstance(message.get("content"), str)
        and message.get("role") in ("system", "user", "assistant")
    )


def _read_text(path: Path, column: str | None) -> list[Prompt]:
    return [_user(line) for line in _lines(path) if line.strip()]


def _lines(path: Path) -> list[str]:
    """Split at line feeds only: str.splitlines also splits at characters that occur within text, such as U+2028."""
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected UTF-8 text") from None


def _read_table(path: Path, column: str | None) -> list[Prompt]:
    import pandas

    column = column or "prompt"
    try:
        table = (
            pandas.read_csv(path, dtype=str, encoding="utf-8-sig")
            if path.suffix == ".csv"
            else pandas.read_parquet(path)
        )
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as {path.suffix[1:]} ({error})") from None
    if column not in table.columns:
        raise InputError(
            f"prompts.column: expected a column of {path}, got {column!r}."
            f"{nearest(column, [str(name) for name in table.columns], 'columns')}"
        )
    values = table[column].tolist()
    for number, value in enumerate(values, 1):
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{path} row {number}: expected non-empty text in {column!r}, got {value!r}")
    return [_user(value) for value in values]


def _user(text: str) -> Prompt:
    return Prompt(({"role": "user", "content": text},), raw=text)


def encode_prompts(
    prompts: Sequence[Prompt], tokenizer: "PreTrainedTokenizerBase", config: PromptsConfig
) -> list[list[int]]:
    """Token ids of every prompt, rendered by the chat template unless `config.chat_template` is false.

    Raises InputError if the tokenizer has no template or the template rejects a prompt, and, without a template, if
    there is a system prompt or a prompt is a list of messages.
    """
    encoded = []
    for number, prompt in enumerate(prompts, 1):
        messages = [dict(message) for message in prompt.messages]
        if config.system is not None:
            messages.insert(0, {"role": "system", "content": config.system})
        if not config.chat_template:
            if prompt.raw is None or config.system is not None:
                what = "prompts.system" if prompt.raw is not None else f"the messages of prompt {number}"
                raise InputError(f"prompts.chat_template: expected true, because {what} requires a template, got false")
            encoded.append(list(tokenizer(prompt.raw)["input_ids"]))
            continue
        if not tokenizer.chat_template:
            raise InputError(
                "prompts.chat_template: the tokenizer has no chat template; to pass prompts as plain text, use "
                "--set prompts.chat_template=false (in a configuration: prompts.chat_template: false)"
            )
        try:
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=config.thinking
            )
        except TemplateError as error:
            raise InputError(f"prompt {number}: rejected by the tokenizer's chat template ({error})") from None
        encoded.append(list(tokenizer(str(text), add_special_tokens=False)["input_ids"]))
    return encoded
