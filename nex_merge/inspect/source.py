"""What of a run is looked at: one response, or responses with labels. Composes readings, annotations and trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nex_merge.errors import InputError
from nex_merge.inspect.annotations import UNLABELLED, Annotation, Labels, label_problem, label_tokens, read_annotations
from nex_merge.inspect.reading import Reading, read_trial
from nex_merge.labels.benchmark import FAMILY
from nex_merge.runs import files
from nex_merge.runs.leaderboard import read_rows
from nex_merge.setup.config import ActivationsConfig, PhasesConfig, parse
from nex_merge.setup.families import read_family


@dataclass(frozen=True)
class Chosen:
    """One response to show."""

    reading: Reading
    title: str
    count: int  # responses to choose from
    settings: str


@dataclass(frozen=True)
class Labelled:
    """Responses with what is said of their tokens."""

    pairs: Sequence[tuple[Reading, Labels]]
    title: str


def settings_line(activations: ActivationsConfig, phases: PhasesConfig) -> str:
    """What phases depend on."""
    return (
        f"rows of {activations.slice_tokens} tokens, the {activations.top_k} highest scores of each kept "
        f"({activations.score}); rho {phases.rho:g}, min_run {phases.min_run}"
    )


def first_trial(run: Path) -> str:
    """The trial that the run's leaderboard has first. Raises InputError where none is scored."""
    ranked = [row["trial"] for row in read_rows(run) if row["rank"] is not None]
    if not ranked:
        raise InputError(f"{run}: none of its trials is scored yet")
    return ranked[0]


def choose_response(run: Path, trial: str | None, number: int) -> Chosen:
    """A response of a trial, of the leaderboard's first unless named. Raises InputError where there is none."""
    chosen, title = _trial(run, trial)
    (reading,) = read_trial(run, chosen, [number])
    saved = files.read_settings(run)
    scoring = files.read_scoring(run) or saved["nex"]
    phases: PhasesConfig = parse(PhasesConfig, {name: scoring[name] for name in ("rho", "min_run")}, str(run))
    activations: ActivationsConfig = parse(ActivationsConfig, saved["activations"], str(run))
    count = len(files.read_responses(files.trial_folder(run, chosen)))
    return Chosen(reading, title, count, settings_line(activations, phases))


def _trial(run: Path, trial: str | None) -> tuple[str, str]:
    """(a trial's id, it in words)."""
    if trial is None:
        chosen = first_trial(run)
        return chosen, f"{run}: trial {chosen} (the leaderboard's first)"
    chosen = files.find_trial(files.read_results(run), trial).trial
    return chosen, f"{run}: trial {chosen}"


def problem_labelled(run: Path, trial: str | None) -> Labelled:
    """All responses of a trial, labelled by the language of qwen3-tiny's problems.

    Raises InputError where the run's responses are not of that language.
    """
    family = read_family(files.read_settings(run)["family"])[1]
    chosen, title = _trial(run, trial)
    pairs = [(reading, label_problem(reading)) for reading in read_trial(run, chosen)]
    if family != FAMILY:
        lines = sum(len([line for line in r.response.text.split("\n") if line.strip()]) for r, _ in pairs)
        malformed = sum(labels.malformed for _, labels in pairs)
        if 2 * malformed >= lines:
            raise InputError(
                f"--annotations builtin: knows the language of family {FAMILY}; this run's family is {family!r}, and "
                f"{malformed} of {lines} lines of trial {chosen} are not of that language. A file of annotations "
                "would do"
            )
    return Labelled(pairs, f"{title}, {len(pairs)} responses, labelled line by line by the problems' language")


def annotated(run: Path, path: Path, trial: str | None) -> Labelled:
    """The annotated responses: those of `trial`, or else of the trials that the file names.

    A line without a trial is about `trial`, or else about the leaderboard's first. Raises InputError naming the line.
    """
    annotations = read_annotations(path)
    results = files.read_results(run)
    asked = None if trial is None else files.find_trial(results, trial).trial
    default = asked
    if default is None and any(annotation.trial is None for annotation in annotations):
        default = first_trial(run)
    groups: dict[tuple[str, int], list[Annotation]] = {}
    others = 0
    for annotation in annotations:
        try:
            of = default if annotation.trial is None else files.find_trial(results, annotation.trial).trial
        except InputError as error:
            raise InputError(f"{path} line {annotation.line}: {error}") from None
        if asked is None or of == asked:
            assert of is not None
            groups.setdefault((of, annotation.response), []).append(annotation)
        else:
            others += 1
    if not groups:
        raise InputError(f"--trial {trial}: no line of {path} is about this trial")
    pairs, named = [], sorted({of for of, _ in groups})
    for of in named:
        own = {number: items for (name, number), items in groups.items() if name == of}
        pairs += _labelled(run, of, own, str(path))
    if all((labels.tokens == UNLABELLED).all() for _, labels in pairs):
        raise InputError(f"{path}: no annotation covers more than half of any token")
    about = f"{run}: trial {named[0]}" if len(named) == 1 else f"{run}: trials {', '.join(named)}"
    left = f"; {others} lines about other trials left out" if others else ""
    return Labelled(pairs, f"{about}, {len(pairs)} responses annotated in {path}{left}")


def _labelled(
    run: Path, trial: str, annotations: Mapping[int, Sequence[Annotation]], source: str
) -> list[tuple[Reading, Labels]]:
    numbers = sorted(annotations)
    last = annotations[numbers[-1]][0]
    try:
        readings = list(read_trial(run, trial, numbers))
    except InputError as error:
        raise InputError(f"{source} line {last.line}: {error}") from None
    return [
        (reading, label_tokens(annotations[number], reading, source))
        for number, reading in zip(numbers, readings, strict=True)
    ]
