"""The run folder: the sole owner of its file names. Knows how results are stored, not how they come about.

    config.yaml  study.db  leaderboard.csv  leaderboard.json  reliability.json  scores.json
    leaderboards/<scoring>/ the same four files under every scoring that was asked for
    trials/<id>/{recipe.yaml, responses.jsonl, cache/, credit/, result.json}
    orders/ the weights' order by magnitude, and live.json, what the search is at: only while a search runs

A trial's id is `base`, a parent's name, or Optuna's trial number in four digits. `result.json` is written last, by
atomic rename: it marks the trial as complete.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nex_merge.errors import InputError
from nex_merge.records import Live, MergeRecipe, NexScore, Reliability, Response, Rivals, TextMeasures, TrialResult

CONFIG, STUDY, LOCK = "config.yaml", "study.db", "lock"
TRIALS, RESULT, RECIPE, RESPONSES, CACHE = "trials", "result.json", "recipe.yaml", "responses.jsonl", "cache"
CREDIT, SCORES, RELIABILITY, LEADERBOARDS = "credit", "scores.json", "reliability.json", "leaderboards"
ACCURACY = "accuracy.json"
ORDERS, LIVE = "orders", "live.json"
SCORED = ("complete", "collapsed")  # states of trials that have responses and a score of their own


def trial_id(number: int) -> str:
    """The id of the Optuna trial with this number."""
    return f"{number:04d}"


def trial_folder(run: Path, trial: str) -> Path:
    return run / TRIALS / trial


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that readers, and we after a crash, see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    # The rename itself lasts only once the folder is on disk.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_recipe(folder: Path, recipe: MergeRecipe) -> None:
    """The recipe as a configuration for `mergekit-yaml`, with the seed that reproduces its tensors in a comment."""
    head = f"# The same tensors: mergekit-yaml {RECIPE} OUT --random-seed {recipe.seed}\n"
    write_atomically(
        folder / RECIPE, head + yaml.safe_dump(dict(recipe.config), sort_keys=False, default_flow_style=None)
    )


def write_responses(folder: Path, responses: Sequence[Response]) -> None:
    lines = [json.dumps(dataclasses.asdict(response)) for response in responses]
    write_atomically(folder / RESPONSES, "\n".join(lines) + "\n")


def read_responses(folder: Path) -> list[Response]:
    """The responses of a trial, in order of prompt and sample. Raises InputError naming a line that holds none."""
    path, responses = folder / RESPONSES, []
    if not path.is_file():
        raise InputError(f"{path}: no such file; without its responses a trial can't be looked at")
    for number, line in enumerate(_text(path).rstrip("\n").split("\n"), 1):
        try:
            item = json.loads(line)
            ids = {name: tuple(item[name]) for name in ("prompt_ids", "token_ids")}
            responses.append(Response(**{**item, **ids}))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} line {number}: is no response that this version wrote ({error})") from None
    return responses


def _text(path: Path) -> str:
    """A file of the run. Raises InputError where it is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text, so it is damaged; a copy of the run would do") from None


def _mapping(path: Path) -> dict[str, Any]:
    """A JSON file of the run. Raises InputError where it is cut short or something else."""
    try:
        found = json.loads(_text(path))
    except json.JSONDecodeError as error:
        advice = "a copy of the run would do; nex-merge rescore writes a leaderboard's own files anew"
        raise InputError(f"{path}: is damaged ({error}); {advice}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: is damaged, as it holds no mapping; a copy of the run would do")
    return found


def write_result(run: Path, result: TrialResult) -> None:
    """Mark a trial as complete. What else belongs to it must be on disk already."""
    write_atomically(trial_folder(run, result.trial) / RESULT, json.dumps(dataclasses.asdict(result), indent=1))


def read_result(run: Path, trial: str) -> TrialResult | None:
    """The result of a trial, or None where it is not complete."""
    path = trial_folder(run, trial) / RESULT
    if not path.is_file():
        return None
    try:
        item = json.loads(_text(path))
        score, text, rivals = item.pop("score"), item.pop("text"), item.pop("rivals")
        return TrialResult(
            **item,
            score=None if score is None else _nex_score(score),
            text=None if text is None else TextMeasures(**text),
            rivals=None if rivals is None else Rivals(**rivals),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: is no result that this version wrote ({error}); remove the file and search again"
        ) from None


def _nex_score(item: Mapping[str, Any]) -> NexScore:
    return NexScore(**{**item, "response_scores": tuple(item["response_scores"])})


def read_scores(run: Path) -> dict[str, NexScore]:
    """The scores of the run's leaderboard by trial; empty before there is one."""
    path = run / SCORES
    if not path.is_file():
        return {}
    return {trial: _nex_score(item) for trial, item in _mapping(path).get("trials", {}).items()}


def read_scoring(run: Path) -> dict[str, Any] | None:
    """How the run's leaderboard is scored: calibration, rho and min_run. None before there is one."""
    path = run / SCORES
    found = _mapping(path) if path.is_file() else {}
    names = ("calibration", "rho", "min_run")
    return {name: found[name] for name in names} if all(name in found for name in names) else None


def read_reliability(run: Path) -> Reliability | None:
    """What the run's reliability.json says, or None where there is none yet."""
    path = run / RELIABILITY
    if not path.is_file():
        return None
    item = _mapping(path)
    return Reliability(**{**item, "reasons": tuple(item["reasons"]), "advice": tuple(item["advice"])})


def read_results(run: Path) -> list[TrialResult]:
    """All complete trials: base, parents, then merges by number. Raises InputError where `run` is no run folder."""
    read_settings(run)
    ids = sorted(path.name for path in (run / TRIALS).glob("*") if path.is_dir())
    found = [result for trial in ids if (result := read_result(run, trial)) is not None]
    return sorted(found, key=_order)


def _order(result: TrialResult) -> tuple[int, str]:
    return ("base", "parent", "merge").index(result.kind), result.trial


def read_settings(run: Path) -> dict[str, Any]:
    """The run's configuration as saved. Raises InputError where `run` is no run folder."""
    if not (run / CONFIG).is_file():
        raise InputError(f"{run}: no run folder (it has no {CONFIG}); the folder that a search printed would do")
    return _yaml(run / CONFIG)


def find_trial(results: Sequence[TrialResult], trial: str) -> TrialResult:
    """The result with this id; `7` will do for `0007`. Raises InputError where there is none."""
    wanted = trial_id(int(trial)) if trial.isdigit() else trial
    for result in results:
        if result.trial == wanted:
            return result
    raise InputError(f"trial {trial!r}: not in this run; it has {', '.join(r.trial for r in results) or 'none yet'}")


def find_scored(results: Sequence[TrialResult], trial: str) -> TrialResult:
    """The result with this id. Raises InputError where there is none, or it has no responses of its own."""
    result = find_trial(results, trial)
    if result.score is None or result.state not in SCORED:
        told = f"it is the same recipe as {result.same_as}" if result.same_as else result.reason
        raise InputError(f"trial {result.trial} has no responses ({told})")
    return result


def read_recipe(run: Path, trial: str) -> Mapping[str, Any]:
    """The mergekit configuration of a trial."""
    return _yaml(trial_folder(run, trial) / RECIPE)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(_text(path))
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path}: is damaged, as it holds no YAML mapping; a copy of the run would do")
    return found


def write_accuracy(run: Path, trial: str, accuracy: Mapping[str, Any]) -> None:
    write_atomically(trial_folder(run, trial) / ACCURACY, json.dumps(accuracy, indent=1))


def read_accuracy(run: Path, trial: str) -> dict[str, Any] | None:
    path = trial_folder(run, trial) / ACCURACY
    return _mapping(path) if path.is_file() else None


def write_live(run: Path, live: Live | None) -> None:
    """Tell those who watch what the search is at; None: that it has ended."""
    path = run / LIVE
    if live is None:
        path.unlink(missing_ok=True)
        return
    # Not worth waiting for the disk: whoever reads it wants what is told next.
    partial = path.with_name(LIVE + ".partial")
    partial.write_text(json.dumps(dataclasses.asdict(live)), encoding="utf-8")
    os.replace(partial, path)


def read_live(run: Path) -> Live | None:
    """What a search told last; None where it has ended, or never began."""
    try:
        return Live(**json.loads((run / LIVE).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
