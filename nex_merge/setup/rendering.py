"""Prompts -> token ids, by a tokenizer's chat template; and what is to be said of how it renders them."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from nex_merge.answers.thinking import is_open
from nex_merge.errors import InputError
from nex_merge.records import Prompt
from nex_merge.setup.config import PromptsConfig
from nex_merge.setup.options import shows_options, with_options
from nex_merge.setup.textfiles import LONGEST, check_text
from nex_merge.wording import counted, listed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Two moments that have no part of a date or time in common.
_MOMENTS = (datetime(2001, 2, 3, 4, 5, 6), datetime(1998, 11, 25, 17, 48, 39))
# Prompts that are rendered again to see what a setting does.
_LOOKED_AT = 8
_LISTED = 5  # places in a note
_PLACE = re.compile(r"(?:line|row|prompt) \d+")


def encode_prompts(
    prompts: Sequence[Prompt],
    tokenizer: "PreTrainedTokenizerBase",
    config: PromptsConfig,
    clock: datetime | None = None,
) -> list[list[int]]:
    """Token ids of every prompt, rendered by the chat template unless `config.chat_template` is false.

    `clock`: the local time for templates that write a date; None: now.

    Raises InputError if the tokenizer has no template, the template rejects a prompt, or a prompt spells out one of the
    tokens that the template marks turns with; and, without a template, if there is a system prompt, or a prompt has
    messages or tools.
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
    clock = clock or datetime.now()
    texts = [
        _text(_placed(prompt, number, config), tokenizer, config, special, clock)
        for number, prompt in enumerate(prompts, 1)
    ]
    if not texts:
        return []
    return [list(ids) for ids in tokenizer(texts, add_special_tokens=not config.chat_template)["input_ids"]]


def _placed(prompt: Prompt, number: int, config: PromptsConfig) -> Prompt:
    """A prompt as it is asked, with a place for messages."""
    asked = with_options(prompt, config)
    return asked if asked.where else replace(asked, where=f"prompt {number}")


def _text(
    prompt: Prompt,
    tokenizer: "PreTrainedTokenizerBase",
    config: PromptsConfig,
    special: Sequence[str],
    clock: datetime,
) -> str:
    """What the tokenizer is given of a prompt."""
    if not config.chat_template:
        return _plain(prompt, config)
    for message in prompt.messages:
        beside = {key: value for key, value in message.items() if key not in ("role", "content")}
        _check_markers(message["content"] + _spelled(beside), prompt.where, special)
    _check_markers(_spelled(prompt.template), prompt.where, special)
    if config.system is not None and prompt.messages[0]["role"] == "system":
        raise InputError(f"prompts.system: expected null, because {prompt.where} has a system message of its own")
    text = _render(prompt, tokenizer, config, clock)
    if len(text) > LONGEST:
        raise InputError(f"{prompt.where}: the chat template makes {counted(len(text), 'character')} of it")
    return text


def _plain(prompt: Prompt, config: PromptsConfig) -> str:
    """The text of a prompt that is passed without a template."""
    what = None
    if prompt.raw is None:
        what = f"a list of messages ({prompt.where})"
    elif config.system is not None:
        what = "prompts.system"
    elif len(prompt.messages) > 1:
        what = f"a system message ({prompt.where})"
    elif prompt.template:
        what = f"{', '.join(prompt.template)} ({prompt.where})"
    if what is not None or prompt.raw is None:
        raise InputError(f"prompts.chat_template: expected true, because {what} requires a template, got false")
    return prompt.raw


def _render(
    prompt: Prompt, tokenizer: "PreTrainedTokenizerBase", config: PromptsConfig, clock: datetime, **changes: Any
) -> str:
    """A prompt's text by the chat template. Raises InputError if the template rejects it."""
    messages = [dict(message) for message in prompt.messages]
    if config.system is not None:
        messages.insert(0, {"role": "system", "content": config.system})
    given = {"enable_thinking": config.thinking, **prompt.template, **changes}
    try:
        with _stopped(clock):
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **given))
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{prompt.where}: rejected by the tokenizer's chat template ({why[:300]})") from None


@contextmanager
def _stopped(clock: datetime) -> Iterator[None]:
    """Let `strftime_now` of chat templates tell this time. transformers passes templates no functions."""
    from transformers.utils import chat_template_utils

    templates: Any = chat_template_utils
    real = templates.datetime
    templates.datetime = SimpleNamespace(now=lambda: clock)
    try:
        yield
    finally:
        templates.datetime = real


def _spelled(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, default=str) if value else ""


def _check_markers(content: str, where: str, special: Sequence[str]) -> None:
    """Raise InputError if `content` spells out a special token, which would end or begin a turn within the prompt."""
    for token in special:
        if token in content:
            raise InputError(
                f"{where}: contains {token}, a special token of this model, which would be read as the end of a turn "
                "or the like, not as text. Remove it, or write it with a blank inside"
            )


def rendering_notes(
    prompts: Sequence[Prompt],
    ids: Sequence[Sequence[int]],
    tokenizer: "PreTrainedTokenizerBase",
    config: PromptsConfig,
    clock: datetime,
) -> list[str]:
    """What a user might not expect of how prompts, already encoded as `ids`, are rendered: one line each."""
    notes = _end_notes(ids, tokenizer)
    if not config.chat_template:
        return notes
    asked = [_placed(prompt, number, config) for number, prompt in enumerate(prompts, 1)]
    looked_at = asked[:_LOOKED_AT]

    def render(prompt: Prompt, at: datetime = clock, **changes: Any) -> str | None:
        try:
            return _render(prompt, tokenizer, config, at, **changes)
        except InputError:  # a template that insists on what was left out or changed
            return None

    if any(len({render(prompt, at) for at in (clock, *_MOMENTS)}) > 1 for prompt in looked_at):
        notes.append(
            f"prompts: the chat template writes the date or time: all prompts of this run have that of "
            f"{clock:%Y-%m-%d %H:%M:%S}, when it was begun, also when it is resumed on another day"
        )
    if not config.thinking:
        if all(render(prompt, enable_thinking=True) == render(prompt) for prompt in looked_at):
            notes.append(
                "prompts.thinking: false has no effect: the chat template makes the same of every prompt with "
                "enable_thinking true and false"
            )
        if any(is_open(render(prompt) or "") for prompt in looked_at):
            notes.append(
                "prompts.thinking: false, but the chat template itself ends prompts with an opened thinking mark, so "
                "that responses begin with thinking"
            )
    for what, unseen in _unseen(asked, render).items():
        notes.append(
            f"{config.place[0]}: {what}: the chat template does not show them "
            f"({listed(map(_short, unseen), _LISTED)}); the "
            "prompts are asked without"
        )
    return notes


def _unseen(prompts: Sequence[Prompt], render: Callable[[Prompt], str | None]) -> dict[str, list[str]]:
    """What lines give beside their text and the template makes nothing of, with their places."""
    unseen: dict[str, list[str]] = {}
    for prompt in prompts:
        for key in prompt.template:
            rest = {name: value for name, value in prompt.template.items() if name != key}
            if render(prompt) == render(replace(prompt, template=rest)):
                name = key if key in ("tools", "documents") else f"chat_template_kwargs.{key}"
                unseen.setdefault(name, []).append(prompt.where)
        calls = tuple({k: v for k, v in message.items() if k != "tool_calls"} for message in prompt.messages)
        results = tuple(message for message in prompt.messages if message["role"] != "tool")
        for name, rest in (("tool_calls", calls), ("messages of role tool", results)):
            if rest != prompt.messages and render(prompt) == render(replace(prompt, messages=rest)):
                unseen.setdefault(name, []).append(prompt.where)
    return unseen


def _end_notes(ids: Sequence[Sequence[int]], tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Says that prompts end in the end token, after which a model has nothing to continue."""
    end = tokenizer.eos_token_id
    count = sum(bool(prompt) and prompt[-1] == end for prompt in ids)
    if end is None or not count:
        return []
    return [
        f"prompts: {counted(count, 'prompt')} of {len(ids)} end in the end token {tokenizer.eos_token}, which the "
        "tokenizer or its chat template appends, as if the text were over (add_eos_token in tokenizer_config.json, or "
        "post_processor in tokenizer.json)"
    ]


def file_notes(prompts: Sequence[Prompt], config: PromptsConfig) -> list[str]:
    """What a user might not expect of a file of prompts: prompts that occur twice, and options that no prompt shows."""
    first: dict[str, str] = {}
    twice = []
    for number, prompt in enumerate(prompts, 1):
        place = prompt.where or f"prompt {number}"
        asked = with_options(prompt, config)
        key = json.dumps([asked.messages, asked.template], default=str, sort_keys=True)
        earlier = first.setdefault(key, place)
        if earlier != place:
            twice.append(f"{_short(place)} as {_short(earlier)}")
    notes = []
    if twice:
        notes.append(
            f"{config.place[0]}: {counted(len(twice), 'prompt')} that another line has already, and that count "
            f"as often as they occur: {listed(twice, _LISTED)}"
        )
    offering = [prompt for prompt in prompts if prompt.choices and not prompt.lettered]
    showing = [prompt for prompt in offering if shows_options(prompt)]
    hidden = len(offering) - len(showing)
    if hidden and config.options == "shown":
        example = next(prompt for prompt in offering if not shows_options(prompt))
        notes.append(
            f"prompts.options: {hidden} of {counted(len(prompts), 'prompt')} have options in the file that their text "
            f"does not show ({_short(example.where)} is one), so no model sees them. To append them as lines 'A. ...': "
            "--set prompts.options=appended"
        )
    if showing and config.options == "appended":
        notes.append(
            f"prompts.options: {len(showing)} of {counted(len(prompts), 'prompt')} show their options already "
            f"({_short(showing[0].where)} is one) and show them twice as they are appended; to leave the prompts as "
            "they are: --set prompts.options=shown"
        )
    return notes


def _short(place: str) -> str:
    """A place without the file and the key."""
    return (_PLACE.findall(place) or [place])[-1]
