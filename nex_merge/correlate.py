"""Does the score agree with accuracy? Correlations with intervals and regret, for NEX and for simple rivals.

Pure statistics over leaderboard rows, plus the reading of accuracy files.
"""

import csv
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from nex_merge import trials
from nex_merge.config import is_number
from nex_merge.errors import InputError

# What is compared with accuracy, and which way it is meant: +1, more is better. Fewer tokens and lower entropy are the
# usual label-free guesses.
SCORES = {"nex": 1, "mean_tokens": -1, "entropy": -1}
FEWEST = 3
RESAMPLES = 2000


def attach_accuracy(run: Path, file: Path) -> None:
    """Read accuracies (CSV or JSON, with `trial` or `recipe`, and `accuracy`) and keep them beside the trials.

    `recipe` is the path of a recipe.yaml, or its text as a mapping. Raises InputError naming file and row.
    """
    results = trials.read_results(run)
    for number, item in enumerate(_read_rows(file), 1):
        where = f"{file} row {number}"
        value = item.get("accuracy")
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise InputError(f"{where}: accuracy is {value!r}; a number between 0 and 1 would do") from None
        if not is_number(value) or not 0 <= float(value) <= 1:  # pyright: ignore[reportArgumentType]
            raise InputError(f"{where}: accuracy is {value!r}; a number between 0 and 1 would do")
        try:
            trial = _trial_of(run, item, results, where)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        trials.write_accuracy(run, trial, {"accuracy": float(value), "source": str(file)})  # pyright: ignore[reportArgumentType]


def _read_rows(file: Path) -> list[Mapping[str, Any]]:
    if not file.is_file():
        raise InputError(f"--accuracy: no file {file}; a CSV or JSON file, or 'builtin' for qwen3-tiny, would do")
    text = file.read_text(encoding="utf-8")
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
        raise InputError(f"--accuracy: {file} is {file.suffix or 'of no type'}; .csv or .json would do")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise InputError(f"{file}: found no rows; a list of {{trial, accuracy}} would do")
    for key in ("accuracy",):
        if key not in rows[0]:
            raise InputError(f"{file}: has no {key}; it has {', '.join(map(str, rows[0]))}")
    return rows


def _trial_of(run: Path, item: Mapping[str, Any], results: Sequence[Any], where: str) -> str:
    if item.get("trial") not in (None, ""):
        return trials.find_trial(results, str(item["trial"])).trial
    recipe = item.get("recipe")
    if isinstance(recipe, str) and Path(recipe).is_file():
        import yaml

        recipe = yaml.safe_load(Path(recipe).read_text(encoding="utf-8"))
    if not isinstance(recipe, Mapping):
        raise InputError("neither trial nor recipe is given; a trial's id or the path of its recipe.yaml would do")
    wanted = json.dumps(recipe, sort_keys=True)
    for result in results:
        if json.dumps(trials.read_recipe(run, result.trial), sort_keys=True) == wanted:
            return result.trial
    raise InputError("no trial of this run has that recipe")


def agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Agreement of every score with accuracy over the leaderboard rows that have both.

    Raises InputError where fewer than three rows have accuracy.
    """
    known = [row for row in rows if row["accuracy"] is not None and row["state"] == "complete"]
    if len(known) < FEWEST:
        raise InputError(
            f"only {len(known)} of {len(rows)} trials have accuracy; give it for at least {FEWEST}, "
            "or measure it with --accuracy builtin (qwen3-tiny only)"
        )
    accuracy = np.array([row["accuracy"] for row in known], float)
    best = int(np.argmax(accuracy))
    return {
        "trials": len(known),
        "best_accuracy": float(accuracy[best]),
        "best_trial": known[best]["trial"],
        "scores": {name: _agreement_of(name, known, accuracy) for name in SCORES},
    }


def _agreement_of(name: str, rows: Sequence[Mapping[str, Any]], accuracy: np.ndarray) -> dict[str, Any]:
    values = SCORES[name] * np.array([row[name] for row in rows], float)
    top = int(np.argmax(values))
    measures = {"spearman": stats.spearmanr, "kendall": stats.kendalltau, "pearson": stats.pearsonr}
    return {
        "direction": "higher is better" if SCORES[name] > 0 else "lower is better",
        **{measure: _with_interval(function, values, accuracy) for measure, function in measures.items()},
        "top_trial": rows[top]["trial"],
        "top_accuracy": float(accuracy[top]),
        "regret": float(accuracy.max() - accuracy[top]),
    }


def _with_interval(function: Any, x: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    """A correlation with its 95 % percentile bootstrap interval over trials; None where it is not defined."""

    def statistic(a: np.ndarray, b: np.ndarray) -> float:
        return float(function(a, b).statistic)

    if len(set(x)) < 2 or len(set(y)) < 2:
        return {"value": None, "low": None, "high": None}
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        # A resample of equal values has no correlation; it is left out below.
        warnings.simplefilter("ignore")
        picks = [rng.integers(len(x), size=len(x)) for _ in range(RESAMPLES)]
        drawn = np.array([statistic(x[pick], y[pick]) for pick in picks])
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return {"value": statistic(x, y), "low": float(low), "high": float(high)}


def print_agreement(found: Mapping[str, Any]) -> None:
    """The agreement as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console = console if console.is_terminal else Console(width=120)
    title = (
        f"Agreement with accuracy over {found['trials']} trials; "
        f"best accuracy {found['best_accuracy']:.3f} (trial {found['best_trial']})"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("score", "spearman", "kendall", "pearson", "its top trial", "accuracy", "regret"):
        table.add_column(column, justify="left" if column in ("score", "its top trial") else "right")
    for name, item in found["scores"].items():
        sign = "" if item["direction"] == "higher is better" else "-"
        correlations = [_shown(item[measure]) for measure in ("spearman", "kendall", "pearson")]
        top = item["top_trial"].lstrip("0") or "0"
        table.add_row(sign + name, *correlations, top, f"{item['top_accuracy']:.3f}", f"{item['regret']:.3f}")
    console.print(table)
    console.print("Intervals: 95 % bootstrap over trials. Regret: best accuracy minus that of the score's top trial.")


def _shown(item: Mapping[str, float | None]) -> str:
    if item["value"] is None:
        return "-"
    return f"{item['value']:.2f} [{item['low']:.2f}, {item['high']:.2f}]"
