"""Responses of a run with labels of their tokens, for `nex-merge agreement`: by the grammar, or annotated in a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nex_merge.errors import InputError
from nex_merge.inspect.annotations import UNLABELLED, Annotation, Labels, label_lines, label_tokens, read_annotations
from nex_merge.inspect.reading import Reading, read_trial
from nex_merge.inspect.views import find_responses
from nex_merge.labels.items import line_labels_of
from nex_merge.runs.files import trial_name
from nex_merge.runs.leaderboard import first_trial
from nex_merge.runs.run import RunFolder
from nex_merge.setup.families import BUNDLED_FAMILY
from nex_merge.wording import counted


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
