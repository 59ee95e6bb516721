"""Trials on workers: who does which, what becomes of one whose worker is lost, and in which order they are kept.

Which trials there are, and what they know, depends on none of this.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from nex_merge import interrupts
from nex_merge.errors import TrialError
from nex_merge.records import MergeRecipe
from nex_merge.runs import files
from nex_merge.study.observers import Observers
from nex_merge.workers.executors import Executor, Gone
from nex_merge.workers.job import Answered, Job, Work

# Times that a trial is begun before it is a failed one, as it may be what its workers die of.
TRIES = 3


@dataclass(eq=False)
class Task:
    """A trial to be worked on."""

    trial: str
    method: str
    begin: Callable[[], Work[Any]]  # its work from the start, for every try
    recipe: MergeRecipe | None = None  # None: nothing is prepared ahead
    tries: int = 0
    lost_at: list[str] = field(default_factory=list)  # the places of workers that were lost with it
    turn: int = 0  # in the order of the trials
    began: float = 0.0


@dataclass(frozen=True)
class Failed:
    """A trial that its recipe, or the loss of its workers, has ended."""

    error: TrialError
    seconds: float


@dataclass(frozen=True)
class Known:
    """What becomes of a trial is known without work."""

    outcome: Any


class Crew:
    """Tasks on the workers of an executor."""

    def __init__(self, executor: Executor, observer: Observers) -> None:
        self._executor, self._observer = executor, observer
        self._waiting: deque[Task] = deque()
        self._at: dict[str, tuple[Task, Work[Any]]] = {}  # by worker
        self._prepared: dict[str, Task] = {}  # by worker, that has been told to prepare for it
        self._given: dict[int, Any] = {}  # what tasks gave that are not kept yet
        self._known: set[str] = set()  # workers that observers know of

    def in_order(
        self,
        parallel: int,
        begin: Callable[[int], Task | Known | None],
        keep: Callable[[int, Any], None],
    ) -> None:
        """Begin trials 0, 1, …, and keep what they give in this order: trial i begins once 0 … i-parallel are kept.

        `begin`: None if there are no more. `keep` gets what a task's work gave, or `Failed`.
        """
        begun = kept = 0
        more = True
        given = self._given = {}
        while more or kept < begun:
            if more and begun - kept < parallel:
                task = begin(begun)
                if task is None:
                    more = False
                    continue
                if isinstance(task, Known):
                    given[begun] = task.outcome
                else:
                    task.turn = begun
                    self._waiting.append(task)
                    self._send()
                begun += 1
                continue
            while kept not in given:
                self._wait()
            keep(kept, given.pop(kept))
            kept += 1

    def _send(self) -> None:
        """Give waiting tasks to idle workers: the one it has prepared for, else the first."""
        for worker in self._executor.ready():
            if worker not in self._known:
                self._known.add(worker)
                self._observer.on_worker(worker, None, 0)
            if worker in self._at:
                continue
            task = self._next(worker, self._prepared.pop(worker, None))
            if task is None:
                continue
            self._waiting.remove(task)
            task.tries, task.began = task.tries + 1, time.monotonic()
            self._at[worker] = (task, task.begin())
            self._observer.on_worker(worker, task.trial, task.tries)
            self._observer.on_trial_start(task.trial, task.method)
            self._go_on(worker, None)

    def _next(self, worker: str, prepared: Task | None) -> Task | None:
        """The waiting task that a worker does next; among equals one that no other has prepared for."""
        if prepared in self._waiting:
            return prepared
        suiting = [task for task in self._waiting if self._suits(task, worker)]
        others = list(self._prepared.values())
        return next((task for task in suiting if task not in others), next(iter(suiting), None))

    def _suits(self, task: Task, worker: str) -> bool:
        """Whether a task that has lost workers is elsewhere with this one, if there is an elsewhere."""
        elsewhere = set(self._executor.places()) - set(task.lost_at)
        return not elsewhere or self._executor.place(worker) in elsewhere

    def _wait(self) -> None:
        for worker in self._at:
            if worker not in self._prepared and (recipe := self._foreseen(worker)) is not None:
                self._executor.prepare(worker, recipe)
        event = self._executor.wait(self._progress)
        if isinstance(event, Gone):
            self._lost(event)
        elif event is not None:
            self._go_on(event.worker, event.outcome)
        self._send()

    def _progress(self, worker: str, stage: str, amount: int) -> None:
        if worker in self._at:
            self._observer.on_stage(self._at[worker][0].trial, stage, amount)

    def _go_on(self, worker: str, outcome: Answered | Exception | None) -> None:
        """Let a worker do the next job of its task, after what the last one gave.

        Raises what is no fault of the recipe.
        """
        task, work = self._at[worker]
        self._observer.trial = task.trial  # whose fault it is, if it ends the search
        try:
            if isinstance(outcome, Exception):
                job = work.throw(outcome)
            else:
                job = next(work) if outcome is None else work.send(outcome)
        except StopIteration as end:
            self._free(worker, end.value)
        except TrialError as error:
            self._fail(worker, error)
        else:
            self._executor.send(worker, self._with_next(worker, job))

    def _with_next(self, worker: str, job: Job) -> Job:
        """A job that says what its worker does next, so that it can prepare for it."""
        recipe = self._foreseen(worker)
        return job if recipe is None else replace(job, next_recipe=recipe)

    def _foreseen(self, worker: str) -> MergeRecipe | None:
        """The recipe of the task that a worker does next, if one that can be prepared for waits."""
        task = self._next(worker, self._prepared.get(worker))
        if task is None or task.recipe is None:
            return None
        self._prepared[worker] = task
        return task.recipe

    def _fail(self, worker: str, error: TrialError) -> None:
        interrupts.check()  # which may have come in its place
        self._free(worker, Failed(error, time.monotonic() - self._at[worker][0].began))

    def _free(self, worker: str, given: Any) -> None:
        task, _ = self._at.pop(worker)
        self._given[task.turn] = given
        self._observer.on_worker(worker, None, task.tries)

    def _lost(self, event: Gone) -> None:
        task, work = self._at.get(event.worker, (None, None))
        self._prepared.pop(event.worker, None)
        self._observer.on_lost(event.worker, event.why)
        if task is None or work is None:
            self._observer.on_note(f"{event.worker} {event.why}; it had no trial")
            return
        work.close()
        task.lost_at.append(event.place)
        if task.tries == TRIES:
            reason = f"its worker was lost in each of {TRIES} tries; the last one {event.why}"
            self._fail(event.worker, TrialError(reason))
            return
        del self._at[event.worker]
        self._observer.on_worker(event.worker, None, task.tries)
        self._observer.on_note(
            f"{files.trial_name(task.trial)}: its worker, {event.worker}, {event.why}; tried again, {task.tries + 1} "
            f"of {TRIES}"
        )
        self._waiting.appendleft(task)
