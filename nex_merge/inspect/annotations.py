"""Explore and exploit labels of a run's responses, from annotation files or from a grammar that labels lines.

A token gets the label of the annotation that covers more than half of its non-space characters. A token without
characters (part of a UTF-8 sequence, an end token) gets one only from annotations in units of tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nex_merge.errors import InputError
from nex_merge.inspect.reading import EXPLOIT, EXPLORE, Reading, read_trial
from nex_merge.inspect.views import find_responses
from nex_merge.labels.items import LineLabels, line_labels_of
from nex_merge.runs.files import trial_name
from nex_merge.runs.leaderboard import first_trial
from nex_merge.runs.run import RunFolder
from nex_merge.setup.explain import nearest
from nex_merge.setup.families import BUNDLED_FAMILY
from nex_merge.setup.paths import check_readable
from nex_merge.setup.textfiles import collect, read_jsonl
from nex_merge.wording import counted

UNLABELLED, IS_EXPLOIT, IS_EXPLORE = -1, 0, 1
VALUES = {EXPLORE: IS_EXPLORE, EXPLOIT: IS_EXPLOIT, None: UNLABELLED}
_KEYS = ("trial", "response", "start", "end", "unit", "label")
_UNITS = ("characters", "tokens")


@dataclass(frozen=True)
class Annotation:
    """One line of an annotation file: the span [start, end) of a response."""

    line: int
    trial: str | None  # None: the requested trial
    response: int
    start: int
    end: int
    unit: str  # characters | tokens
    label: str  # explore | exploit


@dataclass(frozen=True)
class Labels:
    """The labels of one response."""

    tokens: np.ndarray  # int8 [n]: IS_EXPLORE, IS_EXPLOIT or UNLABELLED
    malformed: int = 0  # lines of text outside the grammar


def read_annotations(path: Path) -> tuple[Annotation, ...]:
    """The annotations in a JSONL file. Raises InputError naming the line at fault."""
    check_readable(path, "--annotations", "a JSONL file")
    found = tuple(collect(read_jsonl(path), lambda where, item: _annotation(item, where)))
    if not found:
        raise InputError(f"--annotations: expected at least one annotation, got none in {path}")
    return found


def _annotation(item: Mapping[str, Any], where: str) -> Annotation:
    number = int(where.rpartition(" ")[2])
    for key in item:
        if key not in _KEYS:
            raise InputError(f"{where}: unknown key {key!r}.{nearest(key, list(_KEYS), 'keys')}")
    response, start, end = (_non_negative(item, key, where) for key in ("response", "start", "end"))
    if start >= end:
        raise InputError(f"{where}: end: expected an integer > start ({start}), got {end}")
    unit, label, trial = item.get("unit", "characters"), item.get("label"), item.get("trial")
    if unit not in _UNITS:
        raise InputError(f"{where}: unit: expected 'characters' or 'tokens', got {unit!r}")
    if label not in (EXPLORE, EXPLOIT):
        raise InputError(f"{where}: label: expected 'explore' or 'exploit', got {label!r}")
    if trial is not None and not (isinstance(trial, str | int) and not isinstance(trial, bool)):
        raise InputError(f"{where}: trial: expected a trial id, got {trial!r}")
    return Annotation(number, None if trial is None else str(trial), response, start, end, unit, label)


def _non_negative(item: Mapping[str, Any], key: str, where: str) -> int:
    value = item.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(f"{where}: {key}: expected a non-negative integer, got {value!r}")
    return value


def label_tokens(annotations: Sequence[Annotation], reading: Reading, source: str) -> Labels:
    """The labels of a response's tokens, from the annotations of this response.

    Raises InputError if an annotation exceeds the response, or two with different labels overlap.
    """
    by_line = {annotation.line: annotation for annotation in annotations}
    by_character = _lines_over(annotations, "characters", len(reading.response.text), source)
    by_token = _lines_over(annotations, "tokens", len(reading.response.token_ids), source)
    values = [VALUES[by_line[line].label] if line else UNLABELLED for line in by_character.tolist()]
    labels = _majority(np.array(values, np.int8), reading)
    for token in np.flatnonzero(by_token):
        annotation, present = by_line[int(by_token[token])], int(labels[token])
        if present not in (UNLABELLED, VALUES[annotation.label]):
            start, end = reading.token_starts[token : token + 2]
            overlapping = (by_line[line] for line in by_character[start:end].tolist() if line)
            raise _conflict(annotation, next(a for a in overlapping if VALUES[a.label] == present), source)
        labels[token] = VALUES[annotation.label]
    return Labels(labels)


def _lines_over(annotations: Sequence[Annotation], unit: str, length: int, source: str) -> np.ndarray:
    """The line that annotates each of `length` characters or tokens, 0 if none does; int [length]."""
    by_line = {annotation.line: annotation for annotation in annotations}
    lines = np.zeros(length, int)
    for annotation in annotations:
        if annotation.unit != unit:
            continue
        if annotation.end > length:
            raise InputError(
                f"{source} line {annotation.line}: end: expected at most {length}, got {annotation.end}, because "
                f"response {annotation.response} has {length} {unit}"
            )
        part = lines[annotation.start : annotation.end]
        for line in np.unique(part[part > 0]).tolist():
            if by_line[line].label != annotation.label:
                raise _conflict(annotation, by_line[line], source)
        part[:] = annotation.line
    return lines


def _conflict(one: Annotation, other: Annotation, source: str) -> InputError:
    first, second = sorted((one, other), key=lambda annotation: annotation.line)
    return InputError(
        f"{source} lines {first.line} and {second.line}: expected equal labels where annotations overlap, got "
        f"{first.label} and {second.label} in response {one.response}"
    )


def _majority(values: np.ndarray, reading: Reading) -> np.ndarray:
    """Labels of tokens, int8 [n], from labels of characters, int8 [length of text]."""
    visible = np.array([not character.isspace() for character in reading.response.text], bool)
    labels = np.full(len(reading.response.token_ids), UNLABELLED, np.int8)
    for token, (start, end) in enumerate(pairwise(reading.token_starts)):
        # In a token of white space alone, such as a line break, the white space counts.
        covered = values[start:end][visible[start:end]] if visible[start:end].any() else values[start:end]
        for value in (IS_EXPLORE, IS_EXPLOIT):
            if 2 * int((covered == value).sum()) > len(covered):
                labels[token] = value
    return labels


def label_lines(reading: Reading, line_labels: LineLabels) -> Labels:
    """The labels of a response's tokens, line by line; a line includes the line break that ends it."""
    text = reading.response.text
    values = np.full(len(text), UNLABELLED, np.int8)
    malformed = start = 0
    for line, (label, is_known) in zip(text.split("\n"), line_labels(text), strict=True):
        end = start + len(line) + 1
        values[start:end] = VALUES[label]
        malformed += not is_known
        start = end
    return Labels(_majority(values, reading), malformed)


@dataclass(frozen=True)
class LabelledResponses:
    """Responses with the labels of their tokens."""

    pairs: Sequence[tuple[Reading, Labels]]
    title: str


def label_trial(run: RunFolder, trial: str | None) -> LabelledResponses:
    """All responses of a trial, labelled by the grammar of the bundled family's problems.

    Raises InputError if the responses do not follow that grammar.
    """
    run, trial, title = find_responses(run, trial)
    grammar = line_labels_of(BUNDLED_FAMILY)
    pairs = [(reading, label_lines(reading, grammar)) for reading in read_trial(run, trial)]
    lines = sum(bool(line.strip()) for reading, _ in pairs for line in reading.response.text.split("\n"))
    malformed = sum(labels.malformed for _, labels in pairs)
    if run.family_name != BUNDLED_FAMILY and 2 * malformed >= lines:
        raise InputError(
            f"--annotations builtin: expected a run of family {BUNDLED_FAMILY}, got family {run.family_name!r}: "
            f"{malformed} of {counted(lines, 'line')} of {trial_name(trial)} {'does' if malformed == 1 else 'do'} not "
            "follow the grammar of its problems. Give a file of annotations"
        )
    return LabelledResponses(
        pairs, f"{title}, {counted(len(pairs), 'response')}, labelled line by line by the problems' grammar"
    )


def annotated_responses(run: RunFolder, path: Path, trial: str | None) -> LabelledResponses:
    """The annotated responses of `trial` (None: of all trials in the file).

    A line without a trial refers to `trial`, or to the first of the leaderboard. Raises InputError naming the line.
    """
    annotations = read_annotations(path)
    requested = None if trial is None else run.find(trial).trial
    default = requested
    if default is None and any(annotation.trial is None for annotation in annotations):
        default = first_trial(run)
    found: dict[str, dict[int, list[Annotation]]] = {}  # by trial, then response
    skipped = 0
    for annotation in annotations:
        try:
            name = default if annotation.trial is None else run.find(annotation.trial).trial
        except InputError as error:
            raise InputError(f"{path} line {annotation.line}: {error}") from None
        assert name is not None
        if requested in (None, name):
            found.setdefault(name, {}).setdefault(annotation.response, []).append(annotation)
        else:
            skipped += 1
    if not found:
        raise InputError(f"--trial: expected a trial that {path} annotates, got {trial}")
    trials = sorted(found)
    pairs = [pair for name in trials for pair in _label_responses(run, name, found[name], str(path))]
    if all((labels.tokens == UNLABELLED).all() for _, labels in pairs):
        raise InputError(f"{path}: expected annotations that cover more than half of a token, got none")
    title = f"{run.path}: trial{'s' * (len(trials) > 1)} {', '.join(trials)}"
    note = f"; {counted(skipped, 'line')} about other trials skipped" if skipped else ""
    return LabelledResponses(pairs, f"{title}, {counted(len(pairs), 'response')} annotated in {path}{note}")


def _label_responses(
    run: RunFolder, trial: str, annotations: Mapping[int, Sequence[Annotation]], source: str
) -> list[tuple[Reading, Labels]]:
    numbers = sorted(annotations)
    try:
        readings = list(read_trial(run, trial, numbers))
    except InputError as error:
        # The highest number is the one that is out of range, if any is.
        raise InputError(f"{source} line {annotations[numbers[-1]][0].line}: {error}") from None
    return [
        (reading, label_tokens(annotations[number], reading, source))
        for number, reading in zip(numbers, readings, strict=True)
    ]
