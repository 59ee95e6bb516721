"""What a worker does next: it is told ahead, so that it can prepare, and whoever has prepared does it."""

from nex_merge.engines.observe import ObserveSettings
from nex_merge.records import MergeRecipe
from nex_merge.setup.config import GenerationConfig
from nex_merge.study.crew import Crew, Task
from nex_merge.study.observers import Observers
from nex_merge.workers.executors import Done
from nex_merge.workers.job import Job


class Sent:
    """Workers that are done in the order of `ends`, and what each was sent: its recipe's number and the next one's."""

    def __init__(self, workers, ends):
        self.workers, self.ends, self.sent = workers, iter(ends), []

    def ready(self):
        return self.workers

    def place(self, worker):
        return "cpu"

    def places(self):
        return ["cpu"]

    def send(self, worker, job):
        following = None if job.next_recipe is None else job.next_recipe.seed
        self.sent.append((worker, job.recipe.seed, following))

    def prepare(self, worker, recipe):
        (at, number, following) = next(sent for sent in reversed(self.sent) if sent[0] == worker)
        assert following is None, "told once"
        self.sent[self.sent.index((at, number, None))] = (at, number, recipe.seed)

    def wait(self, progress):
        return Done(next(self.ends), "answered")


def sent_to(workers, ends, parallel, trials):
    executor = Sent(workers, ends)

    def begin(number):
        if number == trials:
            return None
        recipe = MergeRecipe("merge", "ties", {}, number)

        def work():
            yield Job(f"{number:04d}", recipe, [], ObserveSettings(GenerationConfig(), None, None), ())

        return Task(f"{number:04d}", "ties", work, recipe)

    Crew(executor, Observers([])).in_order(parallel, begin, lambda turn, outcome: None)
    return executor.sent


def test_one_trial_at_a_time_has_nothing_to_prepare():
    assert sent_to(["w"], "www", 1, 3) == [("w", 0, None), ("w", 1, None), ("w", 2, None)]


def test_a_worker_prepares_for_the_trial_that_waits():
    # A trial is sent before the next one is proposed, and is not begun before the worker hears of that, too.
    wanted = [("w", 0, 1), ("w", 1, 2), ("w", 2, 3), ("w", 3, None)]
    assert sent_to(["w"], "wwww", 2, 4) == sent_to(["w"], "wwww", 3, 4) == wanted


def test_workers_prepare_for_different_trials_and_do_those():
    sent = sent_to(["v", "w"], "vwwvwvvw", 6, 8)
    assert all(number == following for number, following in _expected(sent))
    assert len({number for _, number, _ in sent}) == len(sent) == 8


def _expected(sent):
    """(what a worker did, what it had been told that it would), where it had been told."""
    told = {}
    for worker, number, following in sent:
        if told.get(worker) is not None:
            yield number, told[worker]
        told[worker] = following
