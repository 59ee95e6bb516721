"""Accuracy of a run's variants on labelled problems. It is never used by the search.

Variants are merged again, one after the other; who answers and grades is a `Grader`'s matter: our own decoding and the
labels of a file (`item_grader.py`), or lm-evaluation-harness (`lm_eval_grader.py`). Variants already measured on the
same are skipped.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from nex_merge import interrupts
from nex_merge.errors import InputError
from nex_merge.runs.accuracies import TASKS, add_measurement, read_measurements
from nex_merge.runs.custody import measuring
from nex_merge.runs.files import trial_name
from nex_merge.runs.remerge import Remerger
from nex_merge.runs.rows import Row
from nex_merge.runs.run import RunFolder


class Grader(Protocol):
    """Measures the accuracy of the variant that is loaded."""

    def prepare(self, remerger: Remerger) -> str:
        """Get ready to grade variants of this run. Returns the source, equal only where accuracies can be compared."""
        ...

    def grade(self) -> dict[str, Any]:
        """The accuracy of the loaded variant, as `runs.accuracies` describes a measurement, without its source."""
        ...


def choose_trials(run: RunFolder, top: int | None, ids: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The trials to measure: the best `top`, those in `ids`, or by default all ranked ones."""
    if top is not None and ids:
        raise InputError("benchmark: expected either --top or --trials, got both")
    if ids:
        results = [run.find(trial) for trial in ids]
        for result in results:
            if result.state == "failed":
                name = trial_name(result.trial)
                raise InputError(f"--trials: {name} failed ({result.reason}); it cannot be measured")
        return [result.trial for result in results]
    return [row.trial for row in rows if row.rank is not None][:top]


def benchmark(run: RunFolder, grader: Grader, chosen: Sequence[str], note: Callable[[str], None]) -> None:
    """Measure the chosen trials and store each accuracy with its 95 % Wilson interval.

    Raises RunError while another command measures or attaches the accuracy of this run.
    """
    with measuring(run.path):
        remerger = Remerger(run)
        source = grader.prepare(remerger)
        for done, trial in enumerate(chosen, 1):
            known = read_measurements(run.path, trial)
            accuracy = next((one for one in known if one.get("source") == source), None)
            if accuracy is None:
                remerger.load(run.find(trial))
                accuracy = {**grader.grade(), "source": source}
                interrupts.check()
            if known[:1] != [accuracy]:  # what was asked for last counts, also where it is an earlier measurement
                add_measurement(run.path, trial, accuracy)
            note(f"[{done}/{len(chosen)}] {trial_name(trial)}: {_in_words(accuracy)}")


def _in_words(accuracy: Mapping[str, Any]) -> str:
    right = f"{accuracy['right']} of {accuracy['n']} right, " if "right" in accuracy else ""
    low, high = accuracy.get("accuracy_low"), accuracy.get("accuracy_high")
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    tasks: Mapping[str, Any] = accuracy.get(TASKS) or {}
    each = ", ".join(f"{name} {item['accuracy']:.3f}" for name, item in tasks.items())
    return f"{right}{accuracy['accuracy']:.3f}{interval}" + (f" ({each})" if len(tasks) > 1 else "")
