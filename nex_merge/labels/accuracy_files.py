"""Accuracy measured by other tools, read from CSV or JSON and attached to a run's trials."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError
from nex_merge.runs import files
from nex_merge.runs.run import Run
from nex_merge.setup.config import is_number


def attach_accuracy(run: Run, file: Path) -> None:
    """Read accuracies (CSV or JSON, with `trial` or `recipe`, and `accuracy`) and store them beside the trials.

    `recipe` is the path of a recipe.yaml, or its content as a mapping. Raises InputError naming file and row.
    """
    accuracies: dict[str, float] = {}
    for number, item in enumerate(_read_rows(file), 1):
        where = f"{file} row {number}"
        value = item.get("accuracy")
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise InputError(f"{where}: accuracy: expected a number between 0 and 1, got {value!r}") from None
        if not is_number(value) or not 0 <= float(value) <= 1:  # pyright: ignore[reportArgumentType]
            raise InputError(f"{where}: accuracy: expected a number between 0 and 1, got {value!r}")
        try:
            accuracies[_trial_of(run, item)] = float(value)  # pyright: ignore[reportArgumentType]
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    for trial, accuracy in accuracies.items():
        files.write_accuracy(run.path, trial, {"accuracy": accuracy, "source": str(file)})


def _read_rows(file: Path) -> list[Mapping[str, Any]]:
    if not file.is_file():
        raise InputError(
            f"--accuracy: no such file: {file}. Give a CSV or JSON file, or 'builtin' for family qwen3-tiny"
        )
    text = _text(file)
    if file.suffix == ".csv":
        rows: Any = list(csv.DictReader(text.splitlines()))
    elif file.suffix == ".json":
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{file}: not valid JSON ({error.msg} in line {error.lineno})") from None
        if isinstance(rows, dict) and all(is_number(value) for value in rows.values()):
            rows = [{"trial": key, "accuracy": value} for key, value in rows.items()]
    else:
        raise InputError(f"--accuracy: expected a .csv or .json file, got {file}")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise InputError(f"{file}: expected a list of {{trial, accuracy}}, got no rows")
    if "accuracy" not in rows[0]:
        raise InputError(f"{file}: expected a column 'accuracy', got {', '.join(map(str, rows[0]))}")
    return rows


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{file}: not UTF-8 text") from None


def _trial_of(run: Run, item: Mapping[str, Any]) -> str:
    if item.get("trial") not in (None, ""):
        return run.find(str(item["trial"])).trial
    recipe = item.get("recipe")
    if isinstance(recipe, str) and Path(recipe).is_file():
        folder = Path(recipe).resolve().parent
        if folder.parent == (run.path / files.TRIALS).resolve():
            # Recipes of stochastic methods may differ in their seeds only.
            return run.find(folder.name).trial
        recipe = files.read_yaml_mapping(Path(recipe))
    if not isinstance(recipe, Mapping):
        raise InputError("expected a trial's id or the path of its recipe.yaml, got neither")
    wanted = json.dumps(recipe, sort_keys=True)
    for result in run.results():
        if json.dumps(files.read_recipe(run.path, result.trial), sort_keys=True) == wanted:
            return result.trial
    raise InputError("expected the recipe of a trial of this run, got another")
