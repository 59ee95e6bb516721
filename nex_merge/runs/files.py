"""The run folder: the names of its files, and reading and writing of single files.

    config.yaml  study.db  leaderboard.csv  leaderboard.json  reliability.json  scores.json
    leaderboards/<scoring>/ a copy of leaderboard.*, reliability.json and scores.json for each scoring
    trials/<id>/{recipe.yaml, responses.jsonl, cache/, credit/, result.json, accuracy.json}
    trials/<id>/{answered.json, blocks-*.jsonl} of one that waits for an earlier one, or is raced: until it has a result
    orders/ (order of the weights by magnitude) and live.json (state of the search): only while a search runs
    work.jsonl what every worker did when, for the report; nothing else reads it
    prompts.json the token ids of the prompts, as every trial reads them
    warm_start.json the trials of another run that the search began with
    tracking.<name>.json what an experiment tracker was told, and the ids that it gave
    audit.json labels that a person gave to a few prompts
    compare.json blind comparisons of two trials, and what judges said
    final/    a run folder like this one: the trials that took part in the final, on its prompts
    error.log the traceback of an internal error that ended a search
    lock, leaderboard.lock, accuracy.lock, compare.lock empty; which of the commands that write is at work is told by
              who holds them

A trial's id is `base`, a parent's name, or Optuna's trial number in at least four digits. `result.json` is written
last, by atomic rename: it marks the trial as finished. `results.py` has its contents.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from nex_merge.atomic import new_file
from nex_merge.errors import InputError
from nex_merge.records import Live, LiveWorker, MergeRecipe, Response
from nex_merge.setup.paths import check_writable_file

CONFIG, STUDY, LOCK = "config.yaml", "study.db", "lock"
TRIALS, RESULT, RECIPE, RESPONSES, CACHE = "trials", "result.json", "recipe.yaml", "responses.jsonl", "cache"
CREDIT, SCORES, RELIABILITY, LEADERBOARDS = "credit", "scores.json", "reliability.json", "leaderboards"
ACCURACY, AUDIT, FINAL = "accuracy.json", "audit.json", "final"
COMPARISONS = "compare.json"
ORDERS, LIVE, WORK, ERRORS = "orders", "live.json", "work.jsonl", "error.log"
WARM_START, PROMPTS = "warm_start.json", "prompts.json"
TRACKING = "tracking.{}.json"
# Held while the leaderboard is read and written anew, while accuracy is measured or attached, and while a judgement is
# kept.
LEADERBOARD_LOCK, ACCURACY_LOCK, COMPARISONS_LOCK = "leaderboard.lock", "accuracy.lock", "compare.lock"
# What a run writes in its own folder, as the docstring lists it: no command puts there what a user asks for.
_OWN = (
    CONFIG, f"{STUDY}*", "leaderboard.*", RELIABILITY, SCORES, LEADERBOARDS, TRIALS, ORDERS, LIVE, WORK, PROMPTS,
    WARM_START, TRACKING.format("*"), AUDIT, COMPARISONS, FINAL, ERRORS, LOCK, "*.lock",
)  # fmt: skip
# How to get back a file of a trial.
RESTORE = "Restore it from a copy of the run"
AGAIN = "Restore it from a copy of the run, or run the search again: it evaluates the trial again"
RECOMPUTED = "The search computes it from the cache"
# States of trials that have their own responses, in the order in which the leaderboard ranks them.
SCORED = ("complete", "pruned", "infeasible", "collapsed")


def trial_id(number: int) -> str:
    """The id of the Optuna trial with this number."""
    return f"{number:04d}"


def trial_label(trial: str) -> str:
    """A trial's id as people read it: merges without leading zeros."""
    return str(int(trial)) if trial.isdigit() else trial


def trial_name(trial: str) -> str:
    """A trial as a sentence names it: `trial 7`, but `base` and the parents' names as they are."""
    return f"trial {trial_label(trial)}" if trial.isdigit() else trial


def trial_in_words(trial: str, kind: str) -> str:
    """A trial as the progress of a search names it: `base`, `parent math`, `trial 7 (ties)`.

    `kind`: base, parent, or the method of a merge.
    """
    return {"base": trial, "parent": f"parent {trial}"}.get(kind, f"{trial_name(trial)} ({kind})")


def trial_order(kind: str, trial: str) -> tuple[int, int, str]:
    """The key that sorts trials: base, parents by name, merges by number (10000 after 9999)."""
    return ("base", "parent", "merge").index(kind), int(trial) if kind == "merge" else 0, trial


def trial_folder(run: Path, trial: str) -> Path:
    return run / TRIALS / trial


def check_output_file(path: Path, source: str, *endings: str) -> None:
    """Raise InputError unless a command may write the file that a user names with the option `source`.

    Its name ends in one of `endings`, if there are any, and it is none of those that a run writes by itself. Others are
    welcome in a run folder.
    """
    check_writable_file(path, source)
    if endings and path.suffix.lower() not in endings:
        raise InputError(f"{source}: expected a file name that ends in {endings[0]}, got {path}")
    real = path.resolve()
    for folder in real.parents:
        name = real.relative_to(folder).parts[0]
        if _holds_a_run(folder) and any(fnmatchcase(name, own) for own in _OWN):
            raise InputError(f"{source}: {path}: {name} belongs to the run in {folder} itself; choose another name")


def _holds_a_run(folder: Path) -> bool:
    # Where `trials` is a file, the folder is somebody else's.
    return (folder / CONFIG).is_file() and ((folder / TRIALS).is_dir() or (folder / STUDY).exists())


def has_trials(folder: Path) -> bool:
    """Whether anything in a folder was asked already."""
    return (folder / TRIALS).exists() or (folder / STUDY).exists()


def blocks(weights_sha256: str) -> str:
    """The file in which a merge that is raced keeps what it has answered so far; `*`: of any weights."""
    return f"blocks-{weights_sha256[:16]}.jsonl"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system name the file that is written, as it does for a full disk alone not."""
    try:
        yield
    except OSError as error:
        error.filename = str(path) if error.filename is None else error.filename
        raise


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that readers see all of it or nothing, also after a crash."""
    with naming(path), new_file(path) as file:
        file.write_text(text, encoding="utf-8")


def write_recipe(folder: Path, recipe: MergeRecipe) -> None:
    write_atomically(folder / RECIPE, recipe_text(recipe))


def recipe_text(recipe: MergeRecipe, name: str = RECIPE, options: str = "", gives: str = "The same tensors") -> str:
    """The recipe as a configuration for `mergekit-yaml`, with the seed that reproduces its tensors in a comment.

    `name`: the file's. `options`: more of the command's. `gives`: what its merge is.
    """
    text = yaml.safe_dump(dict(recipe.config), sort_keys=False, default_flow_style=None)
    # A plain `base+adapter` is merged by mergekit first, into a folder of its own.
    cache = " --lora-merge-cache DIR" if any("+" in model for model in _plain_models(recipe.config)) else ""
    return f"# {gives}: mergekit-yaml {name} OUT --random-seed {recipe.seed}{cache}{options}\n{text}"


def _plain_models(part: Any) -> Iterator[str]:
    """The models that a recipe names by a plain reference, wherever it does."""
    for key, value in part.items() if isinstance(part, Mapping) else enumerate(part if isinstance(part, list) else ()):
        if key in ("model", "base_model") and isinstance(value, str):
            yield value
        yield from _plain_models(value)


def write_responses(folder: Path, responses: Sequence[Response], name: str = RESPONSES) -> None:
    lines = [json.dumps(dataclasses.asdict(response)) for response in responses]
    write_atomically(folder / name, "\n".join(lines) + "\n")


def read_responses(folder: Path, name: str = RESPONSES) -> list[Response]:
    """The responses of a trial, in order of prompt and sample. Raises InputError naming an invalid line."""
    path, responses = folder / name, []
    if not path.is_file():
        raise InputError(f"{path}: no such file. {AGAIN}")
    for number, line in enumerate(read_utf8(path).rstrip("\n").split("\n"), 1):
        try:
            item = json.loads(line)
            ids = {name: tuple(item[name]) for name in ("prompt_ids", "token_ids")}
            responses.append(Response(**{**item, **ids}))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} line {number}: invalid response ({error}). {AGAIN}") from None
    return responses


def read_utf8(path: Path) -> str:
    """The text of a file of the run. Raises InputError if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is damaged: not UTF-8 text. Restore the file from a copy of the run") from None


_RESCORE = f"{RESTORE}; `nex-merge rescore` rewrites the files of a leaderboard"


def read_json(path: Path, advice: str = _RESCORE) -> dict[str, Any]:
    """The object in a JSON file of the run. Raises InputError, with advice, if it is truncated or not an object."""
    try:
        content = json.loads(read_utf8(path))
    except RecursionError:
        raise InputError(f"{path}: is damaged: nested too deeply. {advice}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is damaged: not valid JSON ({error}). {advice}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is damaged: expected a JSON object. {advice}")
    return content


def read_recipe(run: Path, trial: str) -> Mapping[str, Any]:
    """The mergekit configuration of a trial. Raises InputError if the file is missing or damaged."""
    path = trial_folder(run, trial) / RECIPE
    if not path.is_file():
        raise InputError(f"{path}: no such file. {AGAIN}")
    return read_yaml_mapping(path, AGAIN)


def read_yaml_mapping(path: Path, advice: str = RESTORE) -> dict[str, Any]:
    """The mapping in a YAML file of the run. Raises InputError, with advice, if there is none."""
    try:
        content = yaml.safe_load(read_utf8(path))
    except (yaml.YAMLError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is damaged: expected a YAML mapping. {advice}")
    return content


def write_accuracy(run: Path, trial: str, accuracy: Mapping[str, Any]) -> None:
    write_atomically(trial_folder(run, trial) / ACCURACY, json.dumps(accuracy, indent=1))


def read_accuracy(run: Path, trial: str) -> dict[str, Any] | None:
    path = trial_folder(run, trial) / ACCURACY
    return read_json(path) if path.is_file() else None


def write_live(run: Path, live: Live | None) -> None:
    """Publish the state of a search for `nex-merge watch`; None: the search has ended."""
    path = run / LIVE
    if live is None:
        path.unlink(missing_ok=True)
        return
    # Not synced: the next update replaces it within a second.
    with new_file(path, synced=False) as file:
        file.write_text(json.dumps(dataclasses.asdict(live)), encoding="utf-8")


def read_live(run: Path) -> Live | None:
    """The last published state of a search; None if it has ended, never started, or is one of another version."""
    try:
        content = json.loads((run / LIVE).read_text(encoding="utf-8"))
        return Live(**{**content, "workers": [LiveWorker(**worker) for worker in content["workers"]]})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
