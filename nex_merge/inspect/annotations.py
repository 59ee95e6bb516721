"""Where a response explores and where it exploits, as people say, or as qwen3-tiny's problems do. Labels of tokens.

A token takes the label of the annotation that covers more than half of its characters, blanks aside; a token without
characters (a part of UTF-8, an end mark) has none unless tokens are annotated by number.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nex_merge.errors import InputError
from nex_merge.inspect.reading import EXPLOIT, EXPLORE, Reading
from nex_merge.setup.config import nearest

UNLABELLED, IS_EXPLOIT, IS_EXPLORE = -1, 0, 1
_VALUES = {EXPLORE: IS_EXPLORE, EXPLOIT: IS_EXPLOIT}
_KEYS = ("trial", "response", "start", "end", "unit", "label")
_UNITS = ("characters", "tokens")


@dataclass(frozen=True)
class Annotation:
    """One line of a file of annotations: [start, end) of a response."""

    line: int
    trial: str | None  # None: whichever trial is asked about
    response: int
    start: int
    end: int
    unit: str  # characters | tokens
    label: str  # explore | exploit


@dataclass(frozen=True)
class Labels:
    """What is said of one response."""

    tokens: np.ndarray  # int8 [n]: IS_EXPLORE, IS_EXPLOIT or UNLABELLED
    malformed: int = 0  # lines of text that are none of the kinds known


def read_annotations(path: Path) -> tuple[Annotation, ...]:
    """The annotations of a JSONL file. Raises InputError naming the line."""
    if not path.is_file():
        raise InputError(f"--annotations: no file {path}")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"--annotations: {path} is not UTF-8 text") from None
    found = tuple(_annotation(line, f"{path} line {i}", i) for i, line in enumerate(lines, 1) if line.strip())
    if not found:
        raise InputError(f"--annotations: {path} holds no annotations")
    return found


def _annotation(line: str, where: str, number: int) -> Annotation:
    try:
        item = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error.msg})") from None
    if not isinstance(item, dict):
        raise InputError(f'{where}: found {type(item).__name__}; {{"response", "start", "end", "label"}} would do')
    for key in item:
        if key not in _KEYS:
            raise InputError(f"{where}: {key}: unknown key.{nearest(key, list(_KEYS))}")
    response, start, end = (_count(item, key, where) for key in ("response", "start", "end"))
    if start >= end:
        raise InputError(f"{where}: found start {start} and end {end}; an end beyond the start would do")
    unit, label, trial = item.get("unit", "characters"), item.get("label"), item.get("trial")
    if unit not in _UNITS:
        raise InputError(f"{where}: unit: found {unit!r}; characters or tokens would do")
    if label not in (EXPLORE, EXPLOIT):
        raise InputError(f"{where}: label: found {label!r}; explore or exploit would do")
    if trial is not None and not (isinstance(trial, str | int) and not isinstance(trial, bool)):
        raise InputError(f"{where}: trial: found {trial!r}; a trial's id would do")
    return Annotation(number, None if trial is None else str(trial), response, start, end, unit, label)


def _count(item: dict[str, Any], key: str, where: str) -> int:
    value = item.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(f"{where}: {key}: found {value!r}; a whole number from 0 would do")
    return value


def label_tokens(annotations: Sequence[Annotation], reading: Reading, source: str) -> Labels:
    """The labels that annotations of this response give its tokens.

    Raises InputError where one goes beyond the response, or two overlap that say different things.
    """
    said = {annotation.line: annotation for annotation in annotations}
    by_character = _lines_over(annotations, "characters", len(reading.response.text), source)
    by_token = _lines_over(annotations, "tokens", len(reading.response.token_ids), source)
    labels = _majority(_values_of(by_character, said), reading)
    for token in np.flatnonzero(by_token):
        own, held = said[int(by_token[token])], int(labels[token])
        if held not in (UNLABELLED, _VALUES[own.label]):
            start, end = reading.token_starts[token : token + 2]
            other = next(said[i] for i in by_character[start:end].tolist() if i and _VALUES[said[i].label] == held)
            raise _conflict(own, other, source)
        labels[token] = _VALUES[own.label]
    return Labels(labels)


def _lines_over(annotations: Sequence[Annotation], unit: str, length: int, source: str) -> np.ndarray:
    """The line that each of `length` characters or tokens is annotated by, 0 where by none; int [length]."""
    said = {annotation.line: annotation for annotation in annotations}
    lines = np.zeros(length, int)
    for annotation in annotations:
        if annotation.unit != unit:
            continue
        if annotation.end > length:
            raise InputError(
                f"{source} line {annotation.line}: end: found {annotation.end}; response {annotation.response} has "
                f"{length} {unit}"
            )
        part = lines[annotation.start : annotation.end]
        for line in np.unique(part[part > 0]).tolist():
            if said[line].label != annotation.label:
                raise _conflict(annotation, said[line], source)
        part[:] = annotation.line
    return lines


def _conflict(one: Annotation, other: Annotation, source: str) -> InputError:
    first, second = sorted((one, other), key=lambda annotation: annotation.line)
    return InputError(
        f"{source} lines {first.line} and {second.line}: they overlap in response {one.response}, one says "
        f"{first.label} and the other {second.label}; spans that don't overlap would do"
    )


def _values_of(lines: np.ndarray, said: Mapping[int, Annotation]) -> np.ndarray:
    return np.array([_VALUES[said[line].label] if line else UNLABELLED for line in lines.tolist()], np.int8)


def _majority(values: np.ndarray, reading: Reading) -> np.ndarray:
    """Labels of characters, int8 [length of text], as labels of tokens, int8 [n]."""
    ink = np.array([not character.isspace() for character in reading.response.text], bool)
    labels = np.full(len(reading.response.token_ids), UNLABELLED, np.int8)
    for token, (start, end) in enumerate(pairwise(reading.token_starts)):
        # A token of blanks alone, as a line break is, counts by its blanks.
        own = values[start:end][ink[start:end]] if ink[start:end].any() else values[start:end]
        for value in (IS_EXPLORE, IS_EXPLOIT):
            if 2 * int((own == value).sum()) > len(own):
                labels[token] = value
    return labels


# The language of families/qwen3_tiny/problems.py, as generated text has it: words between single blanks.
_CANDIDATE = r"([a-i])[1-9] [0-9]+(?: [+-] \1[1-9] [0-9]+ = [0-9]+){1,2} \1\? [0-9]+"
TRY = re.compile(rf"{_CANDIDATE} no")
CONCLUSION = re.compile(rf"(?:wait )?{_CANDIDATE} yes")
ANSWER = re.compile(r"([a-i])= (?:\1[1-9](?: \1[1-9]){1,2}|[+-] [+-])")
HEAD = re.compile(r"[a-i]:")
_END_OF_THINKING = "</think>"


def label_problem(reading: Reading) -> Labels:
    """The labels that the language of qwen3-tiny's problems gives a response, line by line.

    While thinking, a candidate that ends in "no" explores; one that ends in "yes", its rechecks ("wait ...") and the
    conclusion "x= ..." exploit; after </think> the answer's lines "x= ..." do. Markers, heads ("x:") and empty lines
    say neither. A line goes with the line break that ends it. Only the form counts: a candidate with a wrong sum is a
    candidate. Any other line is malformed, the last one of a response that was cut off in it included: no label.
    """
    text = reading.response.text
    values = np.full(len(text), UNLABELLED, np.int8)
    malformed, start, thinking = 0, 0, True
    for line in text.split("\n"):
        end = min(start + len(line) + 1, len(text))
        value, known = _line_value(" ".join(line.split()), thinking)
        values[start:end] = value
        malformed += not known
        thinking = thinking and line.strip() != _END_OF_THINKING
        start = end
    return Labels(_majority(values, reading), malformed)


def _line_value(line: str, thinking: bool) -> tuple[int, bool]:
    """The label of a line, and whether it is of the language."""
    if ANSWER.fullmatch(line):
        return IS_EXPLOIT, True
    if not line:
        return UNLABELLED, True
    if thinking:
        if TRY.fullmatch(line):
            return IS_EXPLORE, True
        if CONCLUSION.fullmatch(line):
            return IS_EXPLOIT, True
        return UNLABELLED, line in ("<think>", _END_OF_THINKING) or HEAD.fullmatch(line) is not None
    return UNLABELLED, False
