"""Which part of a response is its conclusion: after the thinking, in a box, behind an announcement, after a correction.

Knows nothing of what a conclusion is worth: numbers.py, choices.py and texts.py read what is found here.
"""

import re

# Thinking in the spellings that models use: <think>...</think> and its like, and the channels of gpt-oss.
_CLOSED = re.compile(r"</(?:think|thinking|thought|reasoning)>|\[/THINK\]|<\|channel\|>final<\|message\|>")
_OPENED = re.compile(r"<(?:think|thinking|thought|reasoning)>|\[THINK\]|<\|channel\|>analysis<\|message\|>")
_MARKS = re.compile(r"<\|(?:end|return|im_end|eot_id)\|>")

# What a box is written as; `\boxed 5` without braces is valid LaTeX as well.
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(\{|[0-9A-Za-z])")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_INNERMOST = 8  # boxes in boxes that are opened

# "The answer is", "Final answer:", "#### ", "Antwort:"; between noun and verb, a few words ("to this question").
_NOUN = r"answers?|ans|antwort|r[ée]ponse|respuesta|risposta|resposta|final (?:result|value|total|solution)"
_VERB = r"is|are|was|would be|should be|must be|has to be|will be|comes out (?:to|as)|equals|ist|est|es|è|é"
ANNOUNCEMENT = re.compile(
    rf"\#\#\#\#[ \t]*|\b(?:{_NOUN})\b[*_\s]*"
    rf"(?:(?:[^\n.:!?=]{{0,60}}?\b(?:{_VERB})\b[ \t]*:?)|(?:\([^()\n]{{0,30}}\)\s*)?[:：=]|[ \t]+[-–—][ \t])[*_\s]*"
    r"|答案(?:是|为)?\s*[:：]?\s*",
    re.IGNORECASE,
)
# "is", before which a negation was found, as in "the answer is not".
NEGATION = re.compile(r"\b(?:not|never|cannot|neither|nor|\w+n['’]t)\b", re.IGNORECASE)
# The writer takes something back.
CORRECTION = re.compile(
    r"(?:^|(?<=[.!?\n—–-]\s)|(?<=[.!?\n]))[*_(\s]*(?:no\b(?=[,:.! —–-])|(?:oh |but )?wait\b|actually\b|correction\b|oops\b"
    r"|sorry\b|hmm\b|scratch that\b|on second thou?ght\b|(?:that|this)(?:['’]s| is| was) (?:wrong|incorrect|not right)\b"
    r"|i made (?:a|an) (?:mistake|error)\b|let me correct\b)",
    re.IGNORECASE,
)
# A check of what was concluded, at the end of a response.
_CHECK = re.compile(
    r"(?:^|(?<=[.!?✓]\s)|(?<=\n))\W*(?:(?:now )?let me |let['’]s |to |we can |quick |(?:oh |but )?wait,? (?:let me )?)?"
    r"(?:(?:double[- ]?)?check|verif|confirm|sanity check|proof\b|probe\b)",
    re.IGNORECASE,
)
_RESUMED = re.compile(r"\b(?:so|therefore|thus|hence|should|instead|wrong|incorrect|mistake|error|no)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?。])(?=\s)|\n")


def after_thinking(text: str) -> str:
    """What stands after the thinking; all of it where there is none, nothing where it is unfinished."""
    if "<" not in text and "[" not in text:
        return text.strip()
    end = max((found.end() for found in _CLOSED.finditer(text)), default=0)
    if _OPENED.search(text, end):
        return ""
    return _MARKS.sub("", text[end:]).strip()


def is_open(text: str) -> bool:
    """Whether thinking was begun and not ended."""
    end = max((found.end() for found in _CLOSED.finditer(text)), default=0)
    return _OPENED.search(text, end) is not None


def is_closed(text: str) -> bool:
    """Whether thinking was ended."""
    return _CLOSED.search(text) is not None


def boxed(text: str) -> str | None:
    """The content of the last box, of the innermost one there; None without a box, '' for one that is not closed."""
    found = list(_BOX.finditer(text)) if "\\" in text else []
    if not found:
        return None
    content = _content(text, found[-1])
    # The last box may stand within another one together with more: the outer one is the conclusion.
    for outer in reversed(found[:-1]):
        whole = _content(text, outer)
        if whole is None or outer.start() + len(whole) < found[-1].start():
            break
        content = whole
    for _ in range(_INNERMOST):
        if content is None or (inner := _BOX.search(content)) is None:
            return content or ""
        within = _content(content, inner)
        content = content[: inner.start()] + " " + (within or "") + " " + content[_end(content, inner) :]
    return content or ""


def _content(text: str, box: re.Match[str]) -> str | None:
    if box.group(1) != "{":
        return box.group(1)
    end = _end(text, box)
    return text[box.end() : end - 1] if end else None


def _end(text: str, box: re.Match[str]) -> int:
    """Where a box ends; 0 if it is not closed."""
    if box.group(1) != "{":
        return box.end()
    depth = 1
    for mark in _BRACE.finditer(text, box.end()):
        depth += {"{": 1, "}": -1}.get(mark.group(), 0)
        if not depth:
            return mark.end()
    return 0


def announced(text: str) -> list[str]:
    """What follows each announcement of an answer, up to the next one; in order."""
    found = list(ANNOUNCEMENT.finditer(text))
    ends = [*[later.start() for later in found[1:]], len(text)][: len(found)]
    return [_with_negation(this.group()) + text[this.end() : end] for this, end in zip(found, ends, strict=True)]


def _with_negation(announcement: str) -> str:
    """`not `, if the announcement itself denies ("the answer can't be")."""
    return "not " if NEGATION.search(announcement) else ""


def corrected(text: str) -> str | None:
    """What follows the last correction that is more than a check; None without one."""
    found = list(CORRECTION.finditer(text))
    for this in reversed(found):
        tail = text[this.end() :]
        if not _is_check(text[this.start() :]):
            return tail
    return None


def _is_check(text: str) -> bool:
    return _CHECK.match(text) is not None and _RESUMED.search(text) is None


def without_check(text: str) -> str:
    """The text without a check of the conclusion at its end, unless the check goes on to another conclusion."""
    for this in _CHECK.finditer(text):
        if this.start() and _RESUMED.search(text, this.end()) is None:
            return text[: this.start()]
    return text


def sentences(text: str) -> list[str]:
    """The sentences and lines that are not blank."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part and part.strip()]
