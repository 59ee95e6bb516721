"""Results of lm-evaluation-harness, as it returns or writes them, read as accuracies. It needs no lm-eval.

A task's accuracy is the first of its metrics, in the order of its metric_list, of which more is better and whose value
is between 0 and 1; of several filters, the first. A group that has a figure of its own stands for its tasks.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nex_merge.errors import InputError
from nex_merge.labels.statistics import wilson
from nex_merge.runs.accuracies import TASKS
from nex_merge.setup.strict import is_number

# Metrics of which more is better, but which are no shares, whatever value they have.
_NO_SHARES = {"bleu", "chrf", "ter", "mcc", "bypass"}


def read_tasks(results: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """By task (or group), its accuracy with 95 % Wilson interval, and everything that lm-eval says of it.

    `where`: for messages. Raises InputError where a task has no accuracy, or the results have no tasks.
    """
    found = results.get("results")
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"{where}: expected results of lm-eval, got none of any task")
    return {name: _task(results, name, where) for name in _leading(results)}


def is_results(content: Any) -> bool:
    """Whether the content of a JSON file is what lm-eval writes as results_*.json."""
    return isinstance(content, Mapping) and all(
        isinstance(content.get(key), Mapping) for key in ("results", "configs", "versions")
    )


def measurement_of(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The accuracy over all tasks, a measurement as `runs.accuracies` describes it, without its source.

    Of several tasks it is the mean of their accuracies, each counting alike. `n` is then the number of problems in as
    many tasks of equal size whose mean is as uncertain: k² / Σ 1/n for k tasks of n problems; the sum of n where all
    are equal.
    """
    items = list(tasks.values())
    accuracy = sum(item["accuracy"] for item in items) / len(items)
    found: dict[str, Any] = {"accuracy": accuracy}
    if all("n" in item for item in items):
        problems = len(items) ** 2 / sum(1 / item["n"] for item in items)
        low, high = wilson(accuracy, problems)
        found |= {"n": int(problems), "accuracy_low": low, "accuracy_high": high}
    if all("right_by_problem" in item for item in items):
        found["right_by_problem"] = "".join(item["right_by_problem"] for item in items)
    return found | {TASKS: {name: dict(item) for name, item in tasks.items()}}


def terms_of(results: Mapping[str, Any], name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be equal for two figures of one task to be comparable, by its name in a message."""
    leaves = _leaves(results, name)
    hashes, configs = results.get("task_hashes") or {}, results["configs"]
    config = results.get("config") or {}
    shots = record["shots"]
    return {
        "task version": record["version"],
        "shots": shots,
        "limit": record["limit"],
        "number of samples": record.get("n"),
        "metric": record["metric"],
        "chat template (SHA-256)": results.get("chat_template_sha"),
        "system instruction (SHA-256)": results.get("system_instruction_sha"),
        "few-shot examples as turns": results.get("fewshot_as_multiturn") if shots else None,
        "seed of few-shot examples": config.get("fewshot_seed") if shots else None,
        "generation_kwargs": {leaf: configs.get(leaf, {}).get("generation_kwargs") for leaf in leaves},
        "gen_kwargs": config.get("gen_kwargs") or None,
        "prompts and answers (SHA-256)": {leaf: hashes[leaf] for leaf in leaves if leaf in hashes} or None,
    }


def source_of(name: str, limit: float | None, identity: Any) -> str:
    """What a figure was measured on, in words, with a digest of all that its comparability rests on."""
    text = json.dumps(identity, sort_keys=True, default=str)
    told = "" if limit is None else f", first {limit:g} problems"
    return f"{name}, lm-eval{told} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def joint_source(sources: Sequence[str]) -> str:
    """The source of a measurement by those of its tasks."""
    return sources[0] if len(sources) == 1 else f"mean of {len(sources)} tasks: {'; '.join(sources)}"


def _task(results: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    leaves = _leaves(results, name)
    figures = _figures(results["results"][name])
    chosen = _chosen(results, name, figures)
    if chosen is None:
        told = ", ".join(f"{key} {value:g}" for key, value in figures.items()) or "none"
        raise InputError(
            f"{where}: {name}: expected a metric between 0 and 1 of which its configuration says that more is better, "
            f"got {told}"
        )
    metric, _, filtered = chosen.partition(",")
    counts = [(results.get("n-samples") or {}).get(leaf, {}).get("effective") for leaf in leaves]
    record: dict[str, Any] = {"accuracy": float(figures[chosen])}
    if counts and all(isinstance(count, int) and count > 0 for count in counts):
        record["n"] = sum(counts)
        record["accuracy_low"], record["accuracy_high"] = wilson(record["accuracy"], record["n"])
    lines = [_right(results, leaf, metric, filtered) for leaf in leaves]
    if all(line is not None for line in lines):
        record["right_by_problem"] = "".join(line for line in lines if line is not None)
    stderr = results["results"][name].get(f"{metric}_stderr,{filtered}")
    return record | {
        "metric": chosen,
        "stderr": stderr if is_number(stderr) else None,
        "version": _common(results.get("versions"), [name] if len(leaves) == 1 else [name, *leaves]),
        "shots": _common(results.get("n-shot"), leaves),
        "limit": _whole((results.get("config") or {}).get("limit")),
        "metrics": dict(results["results"][name]),
        **({"parts": {leaf: dict(results["results"][leaf]) for leaf in leaves}} if leaves != [name] else {}),
    }


def _leading(results: Mapping[str, Any]) -> list[str]:
    """The groups with figures of their own, and the tasks that are in none of these, as they are listed."""
    names, groups = results["results"], results.get("group_subtasks") or {}
    figured = [name for name in names if _figures(names[name])]
    covered = {part for name in figured if groups.get(name) for part in _within(groups, name)}
    return [name for name in figured if name not in covered]


def _leaves(results: Mapping[str, Any], name: str) -> list[str]:
    """The tasks whose problems a figure is of."""
    groups = results.get("group_subtasks") or {}
    return [part for part in [name, *_within(groups, name)] if not groups.get(part) and part in results["results"]]


def _within(groups: Mapping[str, Sequence[str]], name: str) -> Iterator[str]:
    for part in groups.get(name, ()):
        yield part
        yield from _within(groups, part)


def _figures(metrics: Any) -> dict[str, float]:
    """The figures of a task by `metric,filter`, without standard errors."""
    if not isinstance(metrics, Mapping):
        return {}
    return {key: value for key, value in metrics.items() if "," in key and "_stderr," not in key and is_number(value)}


def _chosen(results: Mapping[str, Any], name: str, figures: Mapping[str, float]) -> str | None:
    listed = results["configs"].get(name, {}).get("metric_list") or ()
    better = (results.get("higher_is_better") or {}).get(name) or {
        item.get("metric"): item.get("higher_is_better") for item in listed if isinstance(item, Mapping)
    }
    for metric, higher in better.items():
        for key, value in figures.items():
            if higher is True and metric not in _NO_SHARES and key.partition(",")[0] == metric and 0 <= value <= 1:
                return key
    return None


def _right(results: Mapping[str, Any], leaf: str, metric: str, filtered: str) -> str | None:
    """1 or 0 for every problem of a task; None where that is not known, or scores are between."""
    samples = [one for one in (results.get("samples") or {}).get(leaf, ()) if one["filter"] == filtered]
    scores = [one.get(metric) for one in sorted(samples, key=lambda one: one["doc_id"])]
    if not scores or any(score not in (0, 1) for score in scores):
        return None
    return "".join("01"[int(score)] for score in scores)


def _common(values: Any, names: Sequence[str]) -> Any:
    """The one value that all of these have; by name where they differ."""
    known = {name: (values or {}).get(name) for name in names}
    different = {json.dumps(value, sort_keys=True, default=str) for value in known.values() if value is not None}
    return known if len(different) > 1 else next((value for value in known.values() if value is not None), None)


def _whole(limit: Any) -> Any:
    """A limit as an integer where it is one: lm-eval's command writes 200.0, which is no share but 200 problems."""
    return int(limit) if is_number(limit) and limit == int(limit) else limit
