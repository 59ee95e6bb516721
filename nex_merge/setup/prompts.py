"""Files -> Prompts -> token ids. Knows file formats and chat templates; knows nothing of models."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from nex_merge.errors import InputError
from nex_merge.records import Prompt
from nex_merge.setup.config import PromptsConfig, find_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FORMATS = ".jsonl, .txt, .csv and .parquet"


def load_prompts(config: PromptsConfig) -> tuple[Prompt, ...]:
    """The prompts of a file, the first `limit` of them. Raises InputError naming file and line."""
    path = find_file(config.file)
    if path is None or not path.is_file():
        raise InputError(f"prompts.file: found no file {config.file!r}; a path from the working directory would do")
    readers = {".jsonl": _read_jsonl, ".txt": _read_text, ".csv": _read_table, ".parquet": _read_table}
    if path.suffix not in readers:
        raise InputError(f"prompts.file: {path} is {path.suffix or 'of no type'}; {_FORMATS} are read")
    prompts = readers[path.suffix](path, config.column)
    if not prompts:
        raise InputError(f"prompts.file: {path} holds no prompts")
    return tuple(prompts[: config.limit])


def _read_jsonl(path: Path, column: str | None) -> list[Prompt]:
    return [prompt for _, _, prompt in read_jsonl(path, column or "prompt")]


def read_jsonl(path: Path, column: str) -> Iterator[tuple[str, Mapping[str, Any], Prompt]]:
    """(place for messages, the line's mapping, its prompt) of every line of a JSONL file that isn't blank."""
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
    found = f"keys {', '.join(map(str, item))}" if isinstance(item, Mapping) else type(item).__name__
    raise InputError(
        f'{where}: found {found}; "{column}" with text, or "messages" with a list of {{"role", "content"}} would do'
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
    """Lines by line feeds alone: text may hold the other characters that str.splitlines takes for breaks."""
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None


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
        raise InputError(f"{path}: can't be read as {path.suffix[1:]} ({error})") from None
    if column not in table.columns:
        raise InputError(
            f"prompts.column: {path} has no column {column!r}; it has {', '.join(map(str, table.columns))}"
        )
    values = table[column].tolist()
    for number, value in enumerate(values, 1):
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{path} row {number}: {column} is {value!r}; text would do")
    return [_user(value) for value in values]


def _user(text: str) -> Prompt:
    return Prompt(({"role": "user", "content": text},), raw=text)


def encode_prompts(
    prompts: Sequence[Prompt], tokenizer: "PreTrainedTokenizerBase", config: PromptsConfig
) -> list[list[int]]:
    """Token ids of every prompt, through the chat template unless it is switched off.

    Raises InputError where the tokenizer has no template, or a chat is to go without one.
    """
    encoded = []
    for number, prompt in enumerate(prompts, 1):
        messages = [dict(message) for message in prompt.messages]
        if config.system is not None:
            messages.insert(0, {"role": "system", "content": config.system})
        if not config.chat_template:
            if prompt.raw is None or config.system is not None:
                what = "a system prompt" if prompt.raw is not None else f"the chat of prompt {number}"
                raise InputError(f"prompts.chat_template: false leaves no place for {what}; plain prompts would do")
            encoded.append(list(tokenizer(prompt.raw)["input_ids"]))
            continue
        if not tokenizer.chat_template:
            raise InputError("prompts.chat_template: the tokenizer has no chat template; false would do")
        try:
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=config.thinking
            )
        except TemplateError as error:
            raise InputError(f"prompt {number}: the tokenizer's chat template refuses it ({error})") from None
        encoded.append(list(tokenizer(str(text), add_special_tokens=False)["input_ids"]))
    return encoded
