"""Responses -> what they conclude, read once per observation."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

from nex_merge.answers.conclusions import Key, answer_of, conclude, is_unfinished
from nex_merge.records import Observation, Response

# Reading takes 0.3 to 1 ms a response, and every trial of a search needs the conclusions of all before it.
_read: "WeakKeyDictionary[Observation, dict[object, dict[int, list[Key | None]]]]" = WeakKeyDictionary()
_ends: "WeakKeyDictionary[Observation, tuple[int, int, int]]" = WeakKeyDictionary()
# Marks of a turn, of thinking or of the end, where a tokenizer writes them as text: </s>, <|im_end|>, [/THINK].
_MARK = re.compile(r"<\|[^|<>]*\|>|</?[A-Za-z][\w:]*>|\[/?[A-Z]+\]")


def conclusions_of(
    observation: Observation, match: str, options: Mapping[int, int] | None = None
) -> dict[int, list[Key | None]]:
    """By prompt, what each of the responses concludes; None where it concludes nothing.

    `options`: how many options a prompt offers, where known. A response that was cut off concludes nothing, whatever
    its last words are, nor does an empty one.
    """
    options = options or {}
    kept = _read.setdefault(observation, {})
    key = (match, tuple(sorted(options.items())))
    if key not in kept:
        by_prompt: dict[int, list[Key | None]] = {}
        for response in observation.responses:
            says = is_over(response) and not is_empty(response)
            concluded = conclude(response.text, match, options.get(response.prompt)) if says else None
            by_prompt.setdefault(response.prompt, []).append(concluded)
        kept[key] = by_prompt
    return kept[key]


def is_over(response: Response) -> bool:
    """Whether a response ended by itself and closed its thinking."""
    return not response.truncated and not is_unfinished(response.text, response.truncated, False)


def is_empty(response: Response) -> bool:
    """Whether a response says nothing: blanks, marks, or thinking that is closed with nothing after it."""
    said = answer_of(response.text) if is_over(response) else response.text
    return not any(_is_seen(character) for character in _MARK.sub("", said))


def _is_seen(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp", "Zs")


def choose_match(observations: Sequence[Observation]) -> str:
    """`choice` or `number` if most responses that end and say something conclude one in their last line, else text."""
    counts = [_count_ends(observation) for observation in observations]
    choices, numbers, total = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0, 0)
    # An option's text may hold a number ("B) 5 N"), but a number holds no option.
    return "choice" if 2 * choices > total else "number" if 2 * numbers > total else "text"


def _count_ends(observation: Observation) -> tuple[int, int, int]:
    """(responses that conclude a choice, those that conclude a number, those that say something and end)."""
    if observation not in _ends:
        texts = [response.text for response in observation.responses if is_over(response) and not is_empty(response)]
        choices, numbers = (sum(_ends_with(text, match) for text in texts) for match in ("choice", "number"))
        _ends[observation] = choices, numbers, len(texts)
    return _ends[observation]


def _ends_with(text: str, match: str) -> bool:
    """Whether a text and its last line alone conclude one: prose may hold a number, and a last line look like one."""
    last = answer_of(text).rpartition("\n")[2]
    return conclude(last, match) is not None and conclude(text, match) is not None
