"""Prompt files -> Prompts -> token ids. Knows file formats and chat templates; knows nothing of models."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from nex_merge.errors import InputError
from nex_merge.records import Prompt
from nex_merge.setup import textfiles
from nex_merge.setup.config import PromptsConfig, find_file
from nex_merge.setup.explain import nearest
from nex_merge.setup.paths import check_readable
from nex_merge.setup.textfiles import check_text
from nex_merge.setup.yaml_files import as_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FORMATS = ".jsonl, .txt, .csv or .parquet"
_ROLES = ("system", "user", "assistant")
# What programs write into a CSV for a value that is missing. Other formats have a null for it.
_MISSING = ("none", "null", "na", "n/a", "nan", "<na>", "#n/a", "nil")


def load_prompts(config: PromptsConfig) -> tuple[Prompt, ...]:
    """The prompts of `config.file`, the first `config.limit` of them.

    Raises InputError, with file and line, if the file is missing, empty or not in one of the supported formats, or a
    prompt is not text that a person can have meant.
    """
    path = find_file(config.file) or Path(config.file)
    if not path.is_absolute() and not path.exists():
        raise InputError(
            f"prompts.file: no such file: {config.file!r} (relative paths start at the working directory: {Path.cwd()})"
        )
    check_readable(path, "prompts.file", f"a file of type {_FORMATS}")
    readers = {".jsonl": _read_jsonl, ".txt": _read_text, ".csv": _read_csv, ".parquet": _read_parquet}
    kind = textfiles.file_type(path)
    if kind not in readers:
        hint = {".json": ". Convert a JSON array: jq -c '.[]' FILE > FILE.jsonl", ".tsv": ". Save it with commas"}
        raise InputError(f"prompts.file: expected a file of type {_FORMATS}, got {path}{hint.get(kind, '')}")
    prompts = list(readers[kind](path, config.column or "prompt"))
    if not prompts:
        raise InputError(f"prompts.file: expected at least one prompt, got none in {path}")
    return tuple(prompts[: config.limit])


def _read_jsonl(path: Path, column: str) -> Iterator[Prompt]:
    return (prompt for _, _, prompt in read_jsonl(path, column, "prompts.column"))


def read_jsonl(path: Path, column: str, setting: str = "") -> Iterator[tuple[str, Mapping[str, Any], Prompt]]:
    """(location for messages, mapping, prompt) of every non-blank line of a JSONL file.

    `column`: the key of the prompt's text; `setting`: the setting that names another, if there is one. Raises
    InputError if a line is not a JSON object or holds no prompt.
    """
    for where, item in textfiles.read_jsonl(path):
        yield where, item, _from_mapping(item, column, where, setting)


def _from_mapping(item: Mapping[str, Any], column: str, where: str, setting: str) -> Prompt:
    text, messages, options = item.get(column), item.get("messages"), len(options_of(item) or ()) or None
    if isinstance(text, str):
        return replace(_user(text, f"{where}: {column}"), options=options)
    if text is None and messages is not None:
        return Prompt(_messages(messages, f"{where}: messages"), where=where, options=options)
    if column in item:
        raise InputError(f"{where}: {column}: expected text, got {as_yaml(text)}")
    hint = f". To use another key, set {setting}." if setting and item else "."
    raise InputError(
        f'{where}: expected text in "{column}", or a list of {{"role", "content"}} in "messages", got '
        f"{'the keys ' + ', '.join(item) if item else 'an empty object'}{hint}"
        f"{nearest(column, list(item), 'keys') if item else ''}"
    )


def options_of(data: Mapping[str, Any]) -> list[str] | None:
    """The options of a line's multiple-choice question; None where it names none.

    They are in `choices` or `options`, as data sets hold them: a list of texts, a mapping of letters to texts, or a
    mapping with a list under `text`. What a server returned, under `choices` too, is none.
    """
    given = data.get("choices", data.get("options"))
    if isinstance(given, Mapping):
        given = given.get("text", [given[key] for key in sorted(given, key=str.upper)])
    texts = given
    if not isinstance(texts, list) or not 2 <= len(texts) <= 26:
        return None
    if any(isinstance(text, Mapping) and ("finish_reason" in text or "message" in text) for text in texts):
        return None
    return [str(text) for text in texts]


def _messages(messages: Any, where: str) -> tuple[Mapping[str, str], ...]:
    if not isinstance(messages, list) or not messages:
        raise InputError(f'{where}: expected a list of {{"role", "content"}}, got {as_yaml(messages)}')
    for number, message in enumerate(messages):
        at = f"{where}.{number}"
        if not isinstance(message, Mapping):
            raise InputError(f'{at}: expected {{"role", "content"}}, got {as_yaml(message)}')
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES:
            raise InputError(f"{at}.role: expected {', '.join(_ROLES[:-1])} or {_ROLES[-1]}, got {as_yaml(role)}")
        if not isinstance(content, str):
            raise InputError(f"{at}.content: expected text, got {as_yaml(content)}")
        check_text(content, f"{at}.content")
    if messages[-1]["role"] != "user":
        raise InputError(
            f"{where}: expected the last message to be the user's, got the {messages[-1]['role']}'s. Remove what "
            "follows the question"
        )
    if not messages[-1]["content"].strip():
        raise InputError(f"{where}: expected text in the last message, got {messages[-1]['content']!r}")
    return tuple({"role": message["role"], "content": message["content"]} for message in messages)


def _read_text(path: Path, column: str) -> Iterator[Prompt]:
    return (_user(line, where) for where, line in textfiles.read_lines(path))


def _read_csv(path: Path, column: str) -> Iterator[Prompt]:
    for where, row in textfiles.read_csv(path, column):
        _check_column(path, column, list(row))
        if row[column].strip().lower() in _MISSING:
            raise InputError(
                f"{where}: {column}: expected text, got {row[column]!r}, which programs write for a missing value. "
                "Remove the row; a prompt of just this word can be given as JSONL"
            )
        yield _user(row[column], f"{where}: {column}")


def _read_parquet(path: Path, column: str) -> Iterator[Prompt]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            _check_column(path, column, file.schema_arrow.names)
            values = file.read([column]).column(column).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
    for number, value in enumerate(values, 1):
        where = f"{path} row {number}: {column}"
        if not isinstance(value, str):
            shown = f"bytes ({value[:20]!r})" if isinstance(value, bytes) else as_yaml(value)
            raise InputError(f"{where}: expected text, got {shown}")
        yield _user(value, where)


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


def encode_prompts(
    prompts: Sequence[Prompt], tokenizer: "PreTrainedTokenizerBase", config: PromptsConfig
) -> list[list[int]]:
    """Token ids of every prompt, rendered by the chat template unless `config.chat_template` is false.

    Raises InputError if the tokenizer has no template, the template rejects a prompt, or a prompt spells out one of the
    tokens that the template marks turns with; and, without a template, if there is a system prompt or a prompt is a
    list of messages.
    """
    if config.system is not None:
        check_text(config.system, "prompts.system")
    if config.chat_template and prompts and not tokenizer.chat_template:
        raise InputError(
            "prompts.chat_template: the tokenizer has no chat template; to pass prompts as plain text, use "
            "--set prompts.chat_template=false (in a configuration: prompts.chat_template: false)"
        )
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    special = list(dict.fromkeys([*tokenizer.all_special_tokens, *added]))
    if config.chat_template and config.system is not None:
        _check_markers(config.system, "prompts.system", special)
    return [
        _encode(prompt, prompt.where or f"prompt {number}", tokenizer, config, special)
        for number, prompt in enumerate(prompts, 1)
    ]


def _encode(
    prompt: Prompt, where: str, tokenizer: "PreTrainedTokenizerBase", config: PromptsConfig, special: Sequence[str]
) -> list[int]:
    if not config.chat_template:
        if prompt.raw is None or config.system is not None:
            what = "prompts.system" if prompt.raw is not None else f"a list of messages ({where})"
            raise InputError(f"prompts.chat_template: expected true, because {what} requires a template, got false")
        return list(tokenizer(prompt.raw)["input_ids"])
    messages = [dict(message) for message in prompt.messages]
    for message in messages:
        _check_markers(message["content"], where, special)
    if config.system is not None:
        if messages[0]["role"] == "system":
            raise InputError(f"prompts.system: expected null, because {where} has a system message of its own")
        messages.insert(0, {"role": "system", "content": config.system})
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=config.thinking
        )
    except TemplateError as error:
        raise InputError(f"{where}: rejected by the tokenizer's chat template ({error})") from None
    return list(tokenizer(str(text), add_special_tokens=False)["input_ids"])


def _check_markers(content: str, where: str, special: Sequence[str]) -> None:
    """Raise InputError if `content` spells out a special token, which would end or begin a turn within the prompt."""
    for token in special:
        if token in content:
            raise InputError(
                f"{where}: contains {token}, a special token of this model, which would be read as the end of a turn "
                "or the like, not as text. Remove it, or write it with a blank inside"
            )
