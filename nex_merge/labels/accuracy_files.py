"""Accuracy measured by other tools, read from CSV or JSON and attached to a run's trials."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError
from nex_merge.labels.correlate import check_one_source
from nex_merge.runs import files
from nex_merge.runs.accuracies import add_measurement
from nex_merge.runs.custody import measuring
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.run import RunFolder
from nex_merge.setup import textfiles
from nex_merge.setup.jsontext import parse_json
from nex_merge.setup.paths import check_readable, expand_for
from nex_merge.setup.strict import is_number
from nex_merge.setup.yaml_files import as_yaml

_EXAMPLE = "a column 'accuracy', and 'trial' or 'recipe'"


def attach_accuracy(run: RunFolder, file: Path) -> None:
    """Read accuracies (CSV or JSON, with `trial` or `recipe`, and `accuracy`) and store them beside the trials.

    `recipe` is the path of a recipe.yaml, or its content as a mapping. `n`, if there is one, is the number of problems
    that the accuracy is the share of. Raises InputError naming file and row, also where a trial has several.
    """
    accuracies: dict[str, dict[str, Any]] = {}
    places: dict[str, str] = {}

    def read(where: str, item: Any) -> None:
        _check_row(item, where)
        accuracy = {"accuracy": _accuracy(item.get("accuracy"), where), **_problems(item.get("n"), where)}
        try:
            trial = _trial_of(run, item)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if trial in places:
            raise InputError(
                f"{where}: expected one accuracy per trial, got another of {files.trial_name(trial)}, as in "
                f"{places[trial].removeprefix(str(file)).strip()}. If the rows are tasks, give their mean, or one file "
                "per task"
            )
        accuracies[trial], places[trial] = accuracy, where

    textfiles.collect(_rows(file), read)
    if not accuracies:
        raise InputError(f"{file}: expected {_EXAMPLE}, got no rows")
    keep(run, {trial: {**accuracy, "source": str(file)} for trial, accuracy in accuracies.items()})


def keep(run: RunFolder, measurements: Mapping[str, Mapping[str, Any]]) -> None:
    """Store a measurement of each of some trials beside them.

    Raises InputError, and stores none, where those of the other ranked trials were made on other data: a run that has
    both can't be compared with its accuracy any more.
    """
    with measuring(run.path):
        ranked = [row for row in read_rows(run, final=False) if row.rank is not None]
        others = [row.accuracy_source for row in ranked if row.accuracy is not None and row.trial not in measurements]
        check_one_source([*others, *(measurements[row.trial]["source"] for row in ranked if row.trial in measurements)])
        for trial, measurement in measurements.items():
            add_measurement(run.path, trial, measurement)


def _accuracy(value: Any, where: str) -> float:
    number = textfiles.parse_number(value) if isinstance(value, str) else value
    if number is None or not is_number(number):
        raise InputError(f"{where}: accuracy: expected a number between 0 and 1, got {as_yaml(value)}")
    if not 0 <= number <= 1:
        percent = f". If it is in percent, write {number / 100:g}" if 1 < number <= 100 else ""
        raise InputError(f"{where}: accuracy: expected a number between 0 and 1, got {as_yaml(value)}{percent}")
    return float(number)


def _problems(value: Any, where: str) -> dict[str, int]:
    """{"n": number of problems}, or nothing where none is given."""
    if value is None or value == "":
        return {}
    number = textfiles.parse_number(value) if isinstance(value, str) else value
    if number is None or not is_number(number) or number != int(number) or number < 1:
        raise InputError(f"{where}: n: expected the number of problems, an integer above 0, got {as_yaml(value)}")
    return {"n": int(number)}


def _rows(file: Path) -> Iterable[tuple[str, Any]]:
    """(place for messages, row) of every row."""
    if not file.exists():
        raise InputError(
            f"--accuracy: no such file: {file}. Give a CSV or JSON file, or 'builtin' for family qwen3-tiny"
        )
    check_readable(file, "--accuracy", "a .csv or .json file")
    kind = textfiles.file_type(file)
    if kind == ".csv":
        return textfiles.read_csv(file, "accuracy")
    if kind == ".jsonl":
        return textfiles.read_jsonl(file)
    if kind == ".json":
        return _json_rows(file)
    raise InputError(f"--accuracy: expected a .csv or .json file, got {file}")


def _check_row(row: Any, where: str) -> None:
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: expected {{trial, accuracy}}, got {as_yaml(row)}")
    if "accuracy" not in row:
        raise InputError(f"{where}: expected {_EXAMPLE}, got {', '.join(map(str, row)) or 'nothing'}")


def _json_rows(file: Path) -> list[tuple[str, Any]]:
    data = parse_json(textfiles.read_text(file), str(file))
    if isinstance(data, Mapping) and data and "accuracy" not in data:
        return [(f"{file} key {key!r}", {"trial": key, "accuracy": value}) for key, value in data.items()]
    if not isinstance(data, list):
        raise InputError(f"{file}: expected a list of {{trial, accuracy}}, or {{trial: accuracy}}, got {as_yaml(data)}")
    return [(f"{file} row {number}", row) for number, row in enumerate(data, 1)]


def _trial_of(run: RunFolder, item: Mapping[str, Any]) -> str:
    trial = item.get("trial")
    if trial is not None and not (isinstance(trial, str | int) and not isinstance(trial, bool)):
        raise InputError(f"trial: expected a trial's id, got {as_yaml(trial)}")
    if trial is not None and str(trial).strip():
        return run.find(str(trial).strip()).trial
    recipe = item.get("recipe")
    if isinstance(recipe, str) and recipe.strip():
        recipe = expand_for(recipe.strip(), "recipe")
        check_readable(Path(recipe), "recipe")
        folder = Path(recipe).resolve().parent
        if folder.parent == (run.path / files.TRIALS).resolve():
            # Recipes of stochastic methods may differ in their seeds only.
            return run.find(folder.name).trial
        recipe = files.read_yaml_mapping(Path(recipe))
    if not isinstance(recipe, Mapping):
        raise InputError("expected a trial's id or the path of its recipe.yaml, got neither")
    wanted = json.dumps(recipe, sort_keys=True)
    for result in run.results():
        if json.dumps(run.recipe_config(result.trial), sort_keys=True) == wanted:
            return result.trial
    raise InputError("expected the recipe of a trial of this run, got another")
