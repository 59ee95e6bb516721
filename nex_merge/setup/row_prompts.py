"""One row with `prompt` or `messages`, and what stands beside it -> a Prompt. Knows nothing of files and data sets."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nex_merge.errors import InputError
from nex_merge.records import Prompt
from nex_merge.setup.options import OPTIONS, options_of
from nex_merge.setup.textfiles import check_text, check_unicode
from nex_merge.setup.yaml_files import as_yaml

_ROLES = ("system", "user", "assistant", "tool")
# What a line may have beside its prompt. Other keys are the user's own.
BESIDE = ("messages", "system", "tools", "documents", "chat_template_kwargs", *OPTIONS)
_SETTING = "a setting of all prompts: prompts.thinking"
# What would change what a model is asked, and is not taken.
REFUSED = {
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
ASKED_WITH = ("tools", "documents", "chat_template_kwargs", *REFUSED)


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
    if is_conversation(text):
        messages, text = text, None
    elif column is not None and text is not None:
        messages = None
    choices = tuple(options_of(item) or ())
    if isinstance(text, str):
        return _with_beside(replace(user_prompt(text, f"{where}: {key}"), choices=choices), item, where)
    if text is None and messages is not None:
        prompt = Prompt(_messages(messages, f"{where}: {'messages' if item.get(key) is None else key}"))
        return _with_beside(replace(prompt, where=where, choices=choices), item, where)
    if column is None and key not in item and "messages" in item:
        _messages(messages, f"{where}: messages")
    if key in item:
        shown = f"bytes ({text[:20]!r})" if isinstance(text, bytes) else as_yaml(text)
        raise InputError(f"{where}: {key}: expected text, got {shown}")
    hint = f". To use another key, set {setting}." if setting and item else "."
    raise InputError(
        f'{where}: expected text in "{key}", or a list of {{"role", "content"}} in "messages", got '
        f"{'the keys ' + ', '.join(item) if item else 'an empty object'}{hint}"
        f"{_misspelt(key, item)}"
    )


def is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, Mapping) for part in value)


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
    if calls is not None and not (role == "assistant" and is_conversation(calls)):
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
    for key, way in REFUSED.items():
        if item.get(key):
            raise InputError(f"{where}: {key}: not taken in a line; {way}")
    given: dict[str, Any] = {}
    for key in ("tools", "documents"):
        if value := item.get(key):
            if not is_conversation(value):
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


def user_prompt(text: str, where: str) -> Prompt:
    if not text.strip():
        raise InputError(f"{where}: expected non-empty text, got {text!r}")
    check_text(text, where)
    return Prompt(({"role": "user", "content": text},), raw=text, where=where)
