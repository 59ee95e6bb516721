"""Accuracy of a run's variants on labelled prompts, by greedy answers. Kept beside the trials, never fed to the search.

Composes rebuilding, generation and matching. A variant measured on the same data is not measured again.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nex_merge.answers.conclusions import check_match, conclude, is_unfinished, read_gold
from nex_merge.engines.engine import ObserveSettings, observe
from nex_merge.errors import InputError
from nex_merge.families.qwen3_tiny.problems import KINDS, make_problems
from nex_merge.records import Prompt, Response
from nex_merge.runs import files
from nex_merge.runs.remerge import Remerger
from nex_merge.runs.run import Run
from nex_merge.setup.config import PromptsConfig, is_number
from nex_merge.setup.prompts import read_jsonl

# The search's prompts come from seed 1, so none of them is among these.
HELD_OUT_SEED = 2
FAMILY = "qwen3-tiny"


@dataclass(frozen=True)
class Item:
    """One labelled prompt: `is_right` says of a response's text whether it is right."""

    prompt: Prompt
    answer: str
    is_right: Callable[[str], bool]
    kind: str = ""


def matcher(match: str, answer: str) -> Callable[[str], bool]:
    """Whether a response concludes the answer. Raises ValueError where the answer can never be matched."""
    gold = read_gold(answer, match)
    return lambda text: conclude(text, match) == gold


def labelled(where: str, data: Mapping[str, Any], prompt: Prompt, match: str) -> Item:
    """One line's prompt with its answer. Raises InputError, naming the line, where it has none that can be matched."""
    answer = data.get("answer")
    if is_number(answer):
        answer = str(answer)
    if not isinstance(answer, str) or not answer.strip():
        raise InputError(f'{where}: expected "answer" with text or a number, got {answer!r}')
    try:
        return Item(prompt, answer, matcher(match, answer))
    except ValueError as error:
        raise InputError(f"{where}: answer {answer!r} cannot be read as {match}: {error}") from None


def load_items(file: Path, match: str) -> list[Item]:
    """Labelled prompts: JSONL with `prompt` or `messages`, and `answer`. Raises InputError naming the line."""
    check_match(match)
    if not file.is_file():
        raise InputError(f"--data: no such file: {file}")
    items = [labelled(where, data, prompt, match) for where, data, prompt in read_jsonl(file, "prompt")]
    if not items:
        raise InputError(f"--data: {file} contains no labelled prompts")
    return items


def builtin_items(count: int) -> list[Item]:
    """`count` problems of each of qwen3-tiny's kinds that no training batch and no search prompt was drawn from."""
    problems = [problem for kind in KINDS for problem in make_problems(kind, count, HELD_OUT_SEED)]
    return [
        Item(Prompt(({"role": "user", "content": p.prompt},), p.prompt), p.answer, p.is_right, p.kind) for p in problems
    ]


def choose_trials(run: Run, top: int | None, ids: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The trials to measure: the best `top`, those named, or (neither) all that were scored."""
    if top is not None and ids:
        raise InputError("benchmark: give either --top or --trials")
    if ids:
        found = [run.find(trial) for trial in ids]
        for result in found:
            if result.state == "failed":
                raise InputError(f"--trials: trial {result.trial} failed ({result.reason}); it cannot be measured")
        return [result.trial for result in found]
    return [row["trial"] for row in rows if row["rank"] is not None][:top]


def benchmark(run: Run, items: Sequence[Item], name: str, chosen: Sequence[str], note: Callable[[str], None]) -> None:
    """Measure the chosen trials on the items and keep each one's accuracy, with its 95 % Wilson interval."""
    from scipy.stats import binomtest

    remerger = Remerger(run)
    config, engine = remerger.config, remerger.engine
    prompts = config.prompts if name != "builtin" else PromptsConfig(file="")
    generation = config.generation.model_copy(update={"temperature": 0.0, "samples": 1})
    settings = ObserveSettings(generation, activations=None, phases=config.nex)
    encoded = engine.encode([item.prompt for item in items], prompts, generation.max_new_tokens)
    identity = json.dumps([encoded, [item.answer for item in items], generation.max_new_tokens, name])
    source = f"{name} {hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    for done, trial in enumerate(chosen, 1):
        known = files.read_accuracy(run.path, trial)
        if known is None or known.get("source") != source:
            remerger.load(run.find(trial))
            responses = observe(engine, encoded, settings).responses
            known = _accuracy(items, judge(items, responses, prompts.thinking))
            interval = binomtest(known["right"], known["n"]).proportion_ci(method="wilson")
            known |= {"accuracy_low": float(interval.low), "accuracy_high": float(interval.high), "source": source}
            files.write_accuracy(run.path, trial, known)
        note(
            f"[{done}/{len(chosen)}] trial {trial}: {known['right']} of {known['n']} right, {known['accuracy']:.3f} "
            f"[{known['accuracy_low']:.3f}, {known['accuracy_high']:.3f}]"
        )


def _accuracy(items: Sequence[Item], right: Sequence[bool]) -> dict[str, Any]:
    found: dict[str, Any] = {"accuracy": sum(right) / len(right), "right": sum(right), "n": len(right)}
    for kind in sorted({item.kind for item in items if item.kind}):
        own = [r for r, item in zip(right, items, strict=True) if item.kind == kind]
        found[kind] = sum(own) / len(own)
    return found


def judge(items: Sequence[Item], responses: Sequence[Response], thinking: bool) -> list[bool]:
    """Whether each response is right; `thinking`: whether the prompts asked for thinking first."""
    # What was cut off while thinking has not answered, whatever its last words are.
    cut = [is_unfinished(r.text, r.truncated, thinking) for r in responses]
    return [not c and item.is_right(r.text) for item, r, c in zip(items, responses, cut, strict=True)]


def attach_accuracy(run: Run, file: Path) -> None:
    """Read accuracies (CSV or JSON, with `trial` or `recipe`, and `accuracy`) and keep them beside the trials.

    `recipe` is the path of a recipe.yaml, or its text as a mapping. Raises InputError naming file and row.
    """
    found: dict[str, float] = {}
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
            found[_trial_of(run, item)] = float(value)  # pyright: ignore[reportArgumentType]
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    for trial, accuracy in found.items():
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
        raise InputError(f"{file}: no column accuracy; columns: {', '.join(map(str, rows[0]))}")
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
            # Recipes of stochastic methods may be equal and their seeds differ.
            return run.find(folder.name).trial
        recipe = files.read_yaml_mapping(Path(recipe))
    if not isinstance(recipe, Mapping):
        raise InputError("expected a trial's id or the path of its recipe.yaml, got neither")
    wanted = json.dumps(recipe, sort_keys=True)
    for result in run.results():
        if json.dumps(files.read_recipe(run.path, result.trial), sort_keys=True) == wanted:
            return result.trial
    raise InputError("no trial of this run has that recipe")
