"""Results files of lm-evaluation-harness that was run elsewhere, attached to the trials whose exports it was run on.

Which trial a file is about is told by the tensors of the checkpoint that it names, by their SHA-256, or by the user.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError
from nex_merge.labels.accuracy_files import keep
from nex_merge.labels.lm_eval_results import is_results, joint_source, measurement_of, read_tasks, source_of, terms_of
from nex_merge.runs import files
from nex_merge.runs.proof import IDENTITY, checkpoint_digest
from nex_merge.runs.run import RunFolder
from nex_merge.setup import textfiles
from nex_merge.setup.jsontext import parse_json
from nex_merge.setup.paths import check_readable, expand_for
from nex_merge.setup.yaml_files import as_yaml

_BY_HAND = "or say with --map TRIAL=FILE which trial the file is of"


def results_in(path: Path) -> list[Path]:
    """The results files of lm-eval that `--accuracy` names, itself or those in it; none where it is another file."""
    if path.is_dir():
        found = [file for file in sorted(path.rglob("*.json")) if _is_results_file(file)]
        if not found:
            raise InputError(f"--accuracy: expected results_*.json of lm-eval in {path}, got none")
        return found
    return [path] if path.is_file() and path.suffix == ".json" and _is_results_file(path) else []


def attach_results(run: RunFolder, found: Sequence[Path]) -> None:
    """Attach results to the trials whose exports, base or parents they were measured on.

    Raises InputError where a checkpoint is not to be found here or is no variant of this run, and as `attach` does.
    """
    trial_of = cache(lambda model: _trial_of(run, model))

    def matched() -> Iterable[tuple[str, Path]]:
        for file in found:
            try:
                yield trial_of(_model_of(_read(file), file)), file
            except InputError as error:
                raise InputError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from None

    attach(run, list(matched()))


def attach_mapped(run: RunFolder, pairs: Sequence[str]) -> None:
    """Attach results by pairs TRIAL=FILE. Raises InputError as `attach` does."""
    given: list[tuple[str, Path]] = []
    for pair in pairs:
        trial, _, name = pair.partition("=")
        if not trial.strip() or not name.strip():
            raise InputError(f"--map: expected TRIAL=FILE, got {pair!r}")
        file = Path(expand_for(name.strip(), "--map"))
        check_readable(file, "--map", "results_*.json of lm-eval")
        if not _is_results_file(file):
            raise InputError(f"--map: expected results_*.json of lm-eval, got {file}")
        found = run.find(trial.strip()).trial
        if other := next((name for name, known in given if name != found and known.samefile(file)), None):
            raise InputError(
                f"--map: expected a file for each trial, got {file} for {files.trial_name(other)} and for "
                f"{files.trial_name(found)}"
            )
        given.append((found, file))
    attach(run, given)


def attach(run: RunFolder, given: Sequence[tuple[str, Path]]) -> None:
    """Attach (trial, results file), several files of a trial as one measurement.

    Raises InputError naming two files that have the same task of a trial, or that can't be compared: other tasks, or
    the same ones in other versions or with other shots, limits, prompts or numbers of samples.
    """
    tasks: dict[str, dict[str, dict[str, Any]]] = {}
    places: dict[tuple[str, str], Path] = {}
    terms: dict[tuple[str, str], dict[str, Any]] = {}
    for trial, file in given:
        results = _read(file)
        for name, record in read_tasks(results, str(file)).items():
            if (trial, name) in places:
                raise InputError(
                    f"{file}: expected one figure of a task for each trial, got {name} of {files.trial_name(trial)} "
                    f"again, as in {places[trial, name]}"
                )
            terms[trial, name] = terms_of(results, name, record)
            record["source"] = source_of(name, record["limit"], terms[trial, name])
            record["file"] = str(file)
            tasks.setdefault(trial, {})[name] = record
            places[trial, name] = file
    _check_comparable(tasks, places, terms)
    measurements = {}
    for trial, records in tasks.items():
        ordered = dict(sorted(records.items()))
        source = joint_source([record["source"] for record in ordered.values()])
        measurements[trial] = {**measurement_of(ordered), "source": source}
    keep(run, measurements)


def _check_comparable(
    tasks: Mapping[str, Mapping[str, Any]],
    places: Mapping[tuple[str, str], Path],
    terms: Mapping[tuple[str, str], Mapping[str, Any]],
) -> None:
    first = next(iter(tasks))
    for trial in tasks:
        ours, theirs = (places[one, next(iter(tasks[one]))] for one in (first, trial))
        if tasks[trial].keys() != tasks[first].keys():
            raise InputError(
                f"{theirs} and {ours}: expected the same tasks, got {', '.join(sorted(tasks[trial]))}, and "
                f"{', '.join(sorted(tasks[first]))}; accuracies on different tasks can't be compared"
            )
        for name in tasks[first]:
            for what, value in terms[first, name].items():
                if terms[trial, name][what] != value:
                    raise InputError(
                        f"{places[trial, name]} and {places[first, name]}: {name}: expected the same {what}, got "
                        f"{as_yaml(terms[trial, name][what])} and {as_yaml(value)}; the accuracies can't be compared"
                    )


def _read(file: Path) -> Any:
    return parse_json(textfiles.read_text(file), str(file))


def _is_results_file(file: Path) -> bool:
    return is_results(_read(file))


def _model_of(results: Mapping[str, Any], file: Path) -> str:
    """The checkpoint that lm-eval says it loaded."""
    given = (results.get("config") or {}).get("model_args")
    arguments: dict[str, Any] = {}
    if isinstance(given, str):
        pairs = (part.partition("=") for part in given.split(","))
        arguments = {key: value for key, _, value in pairs}
    elif isinstance(given, Mapping):
        arguments = dict(given)
    for changed in ("peft", "delta"):
        if changed in arguments:
            raise InputError(f"{file}: expected results of a checkpoint alone, got one changed by {changed}")
    model = arguments.get("pretrained") or arguments.get("model") or results.get("model_name")
    if not isinstance(model, str):
        raise InputError(f"{file}: expected the checkpoint that was measured in its config.model_args; {_BY_HAND}")
    return model


def _trial_of(run: RunFolder, model: str) -> str:
    """The trial whose tensors a checkpoint has."""
    folder = Path(model)
    if not (folder / "config.json").is_file():
        raise InputError(f"its model {model!r} is no checkpoint folder, seen from here; go where it is one, {_BY_HAND}")
    digest = checkpoint_digest(folder)
    found = [result.trial for result in run.results() if result.weights_sha256 == digest]
    identity = files.read_json(folder / IDENTITY) if (folder / IDENTITY).is_file() else None
    if identity is not None and identity.get("weights_sha256") != digest:
        raise InputError(f"its model {model} was changed since it was exported: its tensors are others")
    if not found:
        raise InputError(f"its model {model} is no export, base or parent of this run: no trial has its tensors")
    exported = None if identity is None else identity.get("trial")
    return exported if exported in found else found[0]
