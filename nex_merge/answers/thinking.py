"""What of a response is thinking, in the marks that models put around it, closed or not.

Knows nothing of what a response concludes.
"""

import re
from functools import lru_cache

# Thinking, and looking back on it. `seed:think`, `antThinking`: a maker's prefix may precede.
_THOUGHT = (
    r"think(?:ing)?(?:[_ -]process)?|thoughts?(?:[_ -]process)?|reason(?:ing)?(?:[_ -]process)?|analysis"
    r"|chain[_ -]of[_ -]thoughts?|cot|scratch[_ -]?pad|inner[_ -](?:monologue|thoughts?)|internal[_ -]thoughts?"
    r"|monologue|deliberation|contemplat(?:ion|or)|rationale"
)
_REVIEW = r"reflect(?:ion)?|self[_ -]reflection|critique|self[_ -]critique|verification|verify"
_NAME = rf"(?:(?!(?:begin|start|end)[_-])[a-z]+[:_-]|ant)?(?:(?P<{{0}}>{_REVIEW})|(?:{_THOUGHT}))"
_MARK = re.compile(
    "|".join(
        [
            rf"<(?P<tag_end>/?){_NAME.format('tag')}(?:\s+\w+=[^<>\n]{{0,80}})?>",
            rf"\[(?P<square_end>/?){_NAME.format('square')}\]",
            rf"[◁◀](?P<wedge_end>/?){_NAME.format('wedge')}[▷▶]",
            rf"<[|｜](?P<bar_end>/?){_NAME.format('bar')}[|｜]>",
            rf"<[|｜/]?(?:(?:begin|start|(?P<words_end>end))[_▁](?:of[_▁])?){_NAME.format('words')}[|｜]?>",
            rf"<[|｜]?{_NAME.format('after')}[_▁](?:begin|start|(?P<after_end>end))[|｜]?>",
            # The channels of gpt-oss, also where a tokenizer has dropped their marks; those of Gemma; roles; prose.
            r"<\|channel\|>(?:analysis|commentary|(?P<channel_end>final))\b[^<\n]{0,40}(?:<\|message\|>)?",
            r"\A\s*analysis(?=[A-Z\d\"'(])|(?P<dropped_end>assistantfinal)",
            r"<(?:\|channel|unused94)>thought\b|(?P<gemma_end><(?:channel\||unused95)>)",
            r"<\|inner_(?:prefix|(?P<inner_end>suffix))\|>",
            r"<\|im_start\|>(?:think|(?P<role_end>answer))\b",
            r"\bHere(?: is|'s) my (?:thought process|(?P<prose_end>response)):",
        ]
    ),
    re.IGNORECASE,
)
_SIGNS = "<", "[", "◁", "◀", "assistantfinal", "my thought process"
_ENDS = [name for name in _MARK.groupindex if name.endswith("_end")]
_REVIEWS = [name for name in _MARK.groupindex if not name.endswith("_end")]


def thoughts(text: str) -> tuple[list[tuple[int, int]], bool]:
    """Where thinking stands, as (start, end) in order, and whether the last is unfinished.

    Everything before an end without a beginning is thinking: the prompt may have begun it.
    """
    found: list[tuple[int, int]] = []
    start, by_review = -1, False
    if not _may_think(text):
        return found, False
    for mark in _MARK.finditer(text):
        is_review = any(mark[name] is not None for name in _REVIEWS)
        # An empty slash is a mark that begins.
        if not any(mark[name] for name in _ENDS):
            if start < 0:
                start, by_review = mark.start(), is_review
        elif start < 0:
            found = [(0, mark.end())]
        elif by_review or not is_review:
            found.append((start, mark.end()))
            start = -1
    if start >= 0:
        found.append((start, len(text)))
    return found, start >= 0


def _may_think(text: str) -> bool:
    """Whether any mark can be in a text; faster than looking for them."""
    return text.lstrip().startswith("analysis") or any(sign in text for sign in _SIGNS)


@lru_cache(maxsize=1024)
def after_thinking(text: str) -> str:
    """What stands after the thinking, or before it where nothing follows; nothing where it is unfinished."""
    found, is_unfinished = thoughts(text)
    if is_unfinished:
        return ""
    if not found:
        return text.strip()
    return text[found[-1][1] :].strip() or text[: found[0][0]].strip()


@lru_cache(maxsize=1024)
def is_open(text: str) -> bool:
    """Whether thinking was begun and not ended."""
    return thoughts(text)[1]


def is_closed(text: str) -> bool:
    """Whether thinking was ended."""
    found, is_unfinished = thoughts(text)
    return len(found) > is_unfinished
