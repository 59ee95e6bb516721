"""math-verify's verdict on two mathematical expressions, within bounds that keep it from running long.

math-verify stops itself by signals, which work in the main thread only. So it runs without them, and what it is given
is bounded instead: length, nesting, exponents, factorials, and the commands it may hold. sympy is imported at the first
question.
"""

import re
from functools import lru_cache
from typing import Any

from nex_merge.answers import spans
from nex_merge.answers.values import words

_LONGEST, _DEEPEST, _DIGITS, _SYMBOLS = 200, 8, 20, 40
_EXPONENTS = 20, 12, 6  # the largest exponent by the number of variables: none, one, more
# Commands that sympy computes at once. Sums, products, integrals and limits can run for ever.
_COMMANDS = words(
    "frac dfrac tfrac cfrac sqrt pi cdot times div pm mp left right infty log ln sin cos tan cot sec csc arcsin "
    "arccos arctan theta alpha beta gamma lambda mu phi omega text mathrm mathbf in cup cap le leq ge geq lt gt "
    "ne neq begin end circ overline angle degree sinh cosh tanh exp quad emptyset varnothing setminus mathbb to e"
)
_WORDS = words("log ln sin cos tan sqrt pi exp pmatrix bmatrix matrix max min")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_WORD = re.compile(r"[^\W\d_]{2,}")
_POWER = re.compile(r"(?:\^|\*\*)\s*[{(]?\s*[-+]?\s*(\d+)?")
_SCIENTIFIC = re.compile(r"\d[eE][-+]?\d")  # which math-verify reads as a product with e
_TOWER = re.compile(r"(?:\^|\*\*)[^-+*/=,]*(?:\^|\*\*)")
_SIGNS = re.compile(r"[-+*/^=<>\\]|[A-Za-z]")
# "2 and 3" is the list 2, 3.
_AND = re.compile(r"\s*,?\s*(?:\\(?:text|mathrm)\s*\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)\s*")
_SPACING = re.compile(r"\\[!,;: ]|\\(?:left|right|displaystyle|[bB]igg?[lr]?)(?![A-Za-z])|[~$]|\\[()\[\]]")
_SEVERAL = re.compile(r"[,;:<>±]|\d\.\d+\.\d|\\(?:pm|mp|in|cup|le|ge|lt|gt)|\d\s*[-–]\s*\d")
# What makes a known answer more than digits: a variable, a command, brackets, a list.
_TERMS = re.compile(r"[A-Za-z\\(\[{,]")
_MATH = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)


def expression(text: str) -> str | None:
    """The mathematics that a text (without thinking) concludes with; None if there is none, or more than is bounded."""
    box = spans.boxed(text)
    if box is not None:
        candidates = [box]
    else:
        pieces = spans.announced(text)
        scope = (spans.sentences(pieces[-1]) or [""])[0] if pieces else text
        marked = [next(group for group in found.groups() if group) for found in _MATH.finditer(scope)]
        candidates = [*marked[-1:], scope]
    for candidate in candidates:
        found = _SPACING.sub(" ", candidate.replace(",\\!", ",").replace("{,}", ",")).strip().rstrip(".").strip()
        found = _AND.sub(", ", found)
        if _is_mathematics(found) and is_bounded(found):
            return found
    return None


def gold_expression(text: str) -> str | None:
    """The mathematics of a known answer; a range, a date or a time is none."""
    found = expression(spans.readable(text))
    return found if found and ":" not in found and (_TERMS.search(found) or not _SEVERAL.search(found)) else None


def _is_mathematics(text: str) -> bool:
    words = _WORD.findall(_COMMAND.sub(" ", text))
    return (
        bool(text)
        and all(word in _WORDS for word in words)
        and re.search(r"\d|\\[a-z]|[A-Za-z)]\s*[-+*/^=]", text) is not None
    )


def is_bounded(text: str) -> bool:
    """Whether sympy is done with an expression at once."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    variables = {letter for letter in re.findall(r"[A-Za-z]", _COMMAND.sub(" ", text))}
    most = _EXPONENTS[min(len(variables), 2)]
    exponents = [found[1] for found in _POWER.finditer(text) if found[1]]
    return (
        len(text) <= _LONGEST
        and deepest <= _DEEPEST
        and "!" not in text
        and all(command in _COMMANDS for command in _COMMAND.findall(text))
        and all(len(digits) <= _DIGITS for digits in re.findall(r"\d+", text))
        and all(len(exponent) <= 3 and int(exponent) <= most for exponent in exponents)
        and _SCIENTIFIC.search(text) is None
        and _TOWER.search(text) is None
        and len(_SIGNS.findall(_COMMAND.sub("\\\\", text))) <= _SYMBOLS
    )


def can_be_read(text: str) -> bool:
    """Whether math-verify makes anything of an expression."""
    return bool(_parsed(text))


def is_equal(response: str, gold: str, gold_is_number: bool) -> bool:
    """Whether math-verify takes two expressions for the same.

    Where the gold answer is a number, an expression with several values or an interval is not asked about.
    """
    if gold_is_number and _SEVERAL.search(response):
        return False
    from math_verify import verify

    ours, theirs = _parsed(response), _parsed(gold)
    try:
        return bool(ours and theirs) and bool(verify(list(theirs), list(ours), timeout_seconds=None))
    except Exception:  # sympy raises whatever it likes at expressions it can't handle
        return False


@lru_cache(maxsize=1024)
def _parsed(text: str) -> tuple[Any, ...]:
    import logging

    from math_verify import LatexExtractionConfig, parse

    # It warns once that its timeouts are off, which is what the bounds are for, and at everything it can't parse.
    for name in ("math_verify", "math_verify.parser", "math_verify.grader", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        found = parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=0)
    except Exception:  # the parser and sympy raise whatever they like at what is no mathematics
        return ()
    return tuple(found)
