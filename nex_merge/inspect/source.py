"""What `phases` and `agreement` look at in a run: one response to display, or responses with labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nex_merge.errors import InputError
from nex_merge.inspect.annotations import UNLABELLED, Annotation, Labels, label_lines, label_tokens, read_annotations
from nex_merge.inspect.reading import Reading, read_trial
from nex_merge.labels.items import line_labels_of
from nex_merge.runs.files import trial_name
from nex_merge.runs.leaderboard import first_trial, shown_in
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import ActivationsConfig, PhasesConfig
from nex_merge.setup.families import BUNDLED_FAMILY
from nex_merge.wording import counted


@dataclass(frozen=True)
class ResponseView:
    """One response to display."""

    reading: Reading
    title: str
    count: int  # responses available from the same source
    settings: str
    trial: str | None = None  # None: not of a run


@dataclass(frozen=True)
class LabelledResponses:
    """Responses with the labels of their tokens."""

    pairs: Sequence[tuple[Reading, Labels]]
    title: str


def describe_settings(activations: ActivationsConfig, phases: PhasesConfig) -> str:
    """The settings that phases depend on, in one line."""
    return (
        f"rows of {counted(activations.slice_tokens, 'token')}, {counted(activations.top_k, 'highest score')} per row "
        f"({activations.score}); rho {phases.rho:g}, min_run {phases.min_run}"
    )


def view_response(run: RunFolder, trial: str | None, number: int) -> ResponseView:
    """A response of a trial (None: the first of the leaderboard). Raises InputError if there is no such response."""
    run, trial, title = _find(run, trial)
    (reading,) = read_trial(run, trial, [number])
    settings = describe_settings(run.config.activations, run.scoring())
    return ResponseView(reading, title, len(run.responses(trial)), settings, trial)


def _find(run: RunFolder, trial: str | None) -> tuple[RunFolder, str, str]:
    """(the run with the responses that the leaderboard shows, trial id, title); None: the first of the leaderboard."""
    found = first_trial(run) if trial is None else run.find(trial).trial
    stage = shown_in(run, found)
    first = " (first of the leaderboard)" if trial is None else ""
    return stage, found, f"{stage.path}: {trial_name(found)}{first}"


def label_trial(run: RunFolder, trial: str | None) -> LabelledResponses:
    """All responses of a trial, labelled by the grammar of the bundled family's problems.

    Raises InputError if the responses do not follow that grammar.
    """
    run, trial, title = _find(run, trial)
    line_labels = line_labels_of(BUNDLED_FAMILY)
    pairs = [(reading, label_lines(reading, line_labels)) for reading in read_trial(run, trial)]
    if run.family_name != BUNDLED_FAMILY:
        lines = sum(len([line for line in r.response.text.split("\n") if line.strip()]) for r, _ in pairs)
        malformed = sum(labels.malformed for _, labels in pairs)
        if 2 * malformed >= lines:
            raise InputError(
                f"--annotations builtin: expected a run of family {BUNDLED_FAMILY}, got family {run.family_name!r}: "
                f"{malformed} of {counted(lines, 'line')} of {trial_name(trial)} "
                f"{'does' if malformed == 1 else 'do'} not follow the grammar of its problems. "
                "Give a file of annotations"
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
    groups: dict[tuple[str, int], list[Annotation]] = {}
    skipped = 0
    for annotation in annotations:
        try:
            name = default if annotation.trial is None else run.find(annotation.trial).trial
        except InputError as error:
            raise InputError(f"{path} line {annotation.line}: {error}") from None
        if requested is None or name == requested:
            assert name is not None
            groups.setdefault((name, annotation.response), []).append(annotation)
        else:
            skipped += 1
    if not groups:
        raise InputError(f"--trial: expected a trial that {path} annotates, got {trial}")
    pairs, trials = [], sorted({name for name, _ in groups})
    for name in trials:
        by_response = {number: items for (of, number), items in groups.items() if of == name}
        pairs += _label_responses(run, name, by_response, str(path))
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
