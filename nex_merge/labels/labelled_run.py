"""What agreement with accuracy needs of a run besides the leaderboard's rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nex_merge.labels.recipe_baselines import baselines_of
from nex_merge.runs import files
from nex_merge.runs.rows import Row
from nex_merge.runs.run import RunFolder


@dataclass(frozen=True)
class LabelledRun:
    """A run's size, and what is known of its variants' accuracies and recipes."""

    prompts: int | None = None  # that every variant answered; None: not known
    samples: int = 1  # responses per prompt
    problems: Mapping[str, int] = field(default_factory=dict)  # behind the accuracy, by trial, where known
    right: Mapping[str, str] = field(default_factory=dict)  # by trial: 1 or 0 for every problem, where known
    equal_weights: float | None = None  # accuracy of the merge with equal weights
    nearest: str | None = None  # the parent that distances are measured from: the first under the objective
    baselines: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)  # by baseline, then trial


def labelled_run(run: RunFolder, rows: Sequence[Row]) -> LabelledRun:
    """Read it. rows: the leaderboard's. Raises InputError if the recipe of a ranked trial is missing or damaged."""
    ranked = [row for row in rows if row.rank is not None]
    accuracies = {row.trial: files.read_accuracy(run.path, row.trial) or {} for row in ranked}
    samples = run.config.generation.samples
    scores = [result.score for row in ranked if (result := run.result(row.trial)) is not None]
    first = {kind: next((row.trial for row in ranked if row.kind == kind), None) for kind in ("base", "parent")}
    recipes = {row.trial: run.recipe_config(row.trial) for row in ranked}
    return LabelledRun(
        prompts=next((score.responses // samples for score in scores if score is not None), None),
        samples=samples,
        problems={trial: item["n"] for trial, item in accuracies.items() if item.get("n") is not None},
        right={trial: item["right_by_problem"] for trial, item in accuracies.items() if "right_by_problem" in item},
        equal_weights=next((row.accuracy for row in ranked if row.reference is not None), None),
        nearest=first["parent"],
        baselines=baselines_of(recipes, first["base"], first["parent"]),
    )


def on_task(run: LabelledRun, rows: Sequence[Row], task: str) -> tuple[list[Row], LabelledRun]:
    """The rows, and what is known of their run, with the accuracy on one task of several for the accuracy."""
    found = {row.trial: row.accuracies[task] for row in rows if task in row.accuracies}
    known = [
        replace(row, accuracy=one.accuracy, accuracy_low=one.low, accuracy_high=one.high, accuracy_source=one.source)
        if (one := found.get(row.trial)) is not None
        else replace(row, accuracy=None, accuracy_low=None, accuracy_high=None, accuracy_source=None)
        for row in rows
    ]
    return known, replace(
        run,
        problems={trial: one.n for trial, one in found.items() if one.n is not None},
        right={trial: one.right for trial, one in found.items() if one.right is not None},
        equal_weights=next((row.accuracy for row in known if row.reference is not None and row.rank is not None), None),
    )
