"""The options of multiple-choice questions: where a line has them, and whether a prompt shows them."""

import itertools
import re
import string
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nex_merge.records import Prompt
from nex_merge.setup.config import PromptsConfig

# The keys that a line's options stand in.
OPTIONS = ("choices", "options", *string.ascii_uppercase)


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
    """A prompt as it is asked: its options follow it if they are apart from it, or `prompts.options` is appended."""
    if not prompt.choices or not (prompt.lettered or config.options == "appended"):
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
