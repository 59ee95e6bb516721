"""What the lines of a response to a problem are: candidates that fail, or what was found. Pure text.

The patterns follow `problems.py`, in generated text: words separated by single spaces. Only the form counts: a
candidate with a wrong sum is still a candidate.
"""

import re
from collections.abc import Iterator

_CANDIDATE = r"([a-i])[1-9] [0-9]+(?: [+-] \1[1-9] [0-9]+ = [0-9]+){1,2} \1\? [0-9]+"
TRY = re.compile(rf"{_CANDIDATE} no")
CONCLUSION = re.compile(rf"(?:wait )?{_CANDIDATE} yes")
ANSWER = re.compile(r"([a-i])= (?:\1[1-9](?: \1[1-9]){1,2}|[+-] [+-])")
HEAD = re.compile(r"[a-i]:")
_END_OF_THINKING = "</think>"


def line_labels(text: str) -> Iterator[tuple[str | None, bool]]:
    """For every line of a response: "explore", "exploit" or None, and whether it follows the grammar.

    While thinking, a candidate that ends in "no" is explore; one that ends in "yes", its rechecks ("wait ...") and the
    conclusion "x= ..." are exploit, and so are the answer's lines "x= ..." after </think>. Markers, heads ("x:") and
    empty lines have no label, and neither has any other line, which is malformed, such as a truncated last one.
    """
    thinking = True
    for words in text.split("\n"):
        line = " ".join(words.split())
        if ANSWER.fullmatch(line) or (thinking and CONCLUSION.fullmatch(line)):
            yield "exploit", True
        elif thinking and TRY.fullmatch(line):
            yield "explore", True
        else:
            is_marker = thinking and (line in ("<think>", _END_OF_THINKING) or HEAD.fullmatch(line))
            yield None, not line or bool(is_marker)
        thinking = thinking and line != _END_OF_THINKING
