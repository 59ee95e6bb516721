"""Who does the jobs of trials: the contract that one process, several, and a cluster have in common.

An executor has workers, each with an engine of its own. They know jobs (`job.py`) and nothing else: no study and no run
folder, so that a worker that was given up for lost can't write anything. tests/workers/ has the suite that every
executor passes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from nex_merge.engines.contracts import Engine
from nex_merge.records import MergeRecipe
from nex_merge.workers.job import Answered, Job, perform

# (worker, stage, amount): how far a worker is with its job, see `engines.observe.Notify`.
Progress = Callable[[str, str, int], None]
HERE = "here"


@dataclass(frozen=True)
class Done:
    """A worker has done its job. An error other than TrialError is a fault of the program."""

    worker: str
    outcome: Answered | Exception


@dataclass(frozen=True)
class Gone:
    """A worker is lost, with its job if it had one; another may take its place, under another name."""

    worker: str
    place: str
    why: str  # in words that follow its name


class Executor(Protocol):
    """Workers, by name, that do one job at a time."""

    def ready(self) -> Sequence[str]:
        """The workers that can be sent a job now, or are at one."""
        ...

    def place(self, worker: str) -> str:
        """What a worker has for itself, a device or a node: a trial that lost its worker is better tried elsewhere."""
        ...

    def places(self) -> Sequence[str]:
        """The places of all workers, of those that are being started as well."""
        ...

    def send(self, worker: str, job: Job) -> None:
        """Let a worker do a job. Jobs of one trial go to one worker, in turn."""
        ...

    def prepare(self, worker: str, recipe: MergeRecipe) -> None:
        """Tell a worker, after its job was sent, what it does next. One that is at it already need not hear."""

    def wait(self, progress: Progress) -> Done | Gone | None:
        """What happened next; None: nothing that ends a job, within about a second.

        Raises RunError if no worker is left and none can be started.
        """
        ...

    def close(self) -> None:
        """End all workers, within seconds, whatever they are at."""
        ...


class Here(Executor):
    """One worker, in this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._job: Job | None = None

    def ready(self) -> Sequence[str]:
        return [HERE]

    def place(self, worker: str) -> str:
        return HERE

    def places(self) -> Sequence[str]:
        return [HERE]

    def send(self, worker: str, job: Job) -> None:
        self._job = job

    def prepare(self, worker: str, recipe: MergeRecipe) -> None:
        if self._job is not None:
            self._job = replace(self._job, next_recipe=recipe)

    def wait(self, progress: Progress) -> Done | Gone | None:
        job, self._job = self._job, None
        if job is None:
            return None
        try:
            return Done(HERE, perform(job, self._engine, lambda stage, amount: progress(HERE, stage, amount)))
        except Exception as error:  # the one who asked for the job knows whose fault it is
            return Done(HERE, error)

    def close(self) -> None:
        pass
