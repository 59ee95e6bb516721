"""Base and parents, which answer before any merge: what merges are drafted from and held against."""

from nex_merge.errors import RunError
from nex_merge.measures.guard import blind_spot
from nex_merge.measures.measure import Pool, shared_weights
from nex_merge.records import NeuronWeights, Variant
from nex_merge.runs import files
from nex_merge.runs.run import RunFolder
from nex_merge.setup.families import Family
from nex_merge.study.budget import reached
from nex_merge.study.crew import Crew, Failed, Known, Task
from nex_merge.study.observers import Observers
from nex_merge.study.proposal import passthrough
from nex_merge.study.trial import TrialRunner, Tried


class Baselines:
    """Base and parents of a run, those of them that aren't scored yet."""

    def __init__(
        self, family: Family, run: RunFolder, runner: TrialRunner, out_dtype: str, dispatch: Observers
    ) -> None:
        self._run, self._runner, self._dispatch, self._config = run, runner, dispatch, runner.terms.config
        self._recipes = {
            name: passthrough("base" if name == "base" else "parent", name, reference, out_dtype)
            for name, reference in family.references.items()
            if run.result(name) is None
        }
        nex = self._config.nex
        self._shared = nex.calibration in ("parents", "pool") and self._config.activations.capture == "all"
        self._answered: dict[str, Tried] = {}  # to be scored once all of them have responses

    def score(self, crew: Crew) -> None:
        """Have them answer, and score them: base first, then the parents.

        Shared neuron weights can be computed only after all of them have responses. Raises RunError if all of them fail
        and the shared weights would come from them.
        """
        parallel, names = self._config.study.parallel, list(self._recipes)
        first = names[:1] if names[:1] == ["base"] else []
        for some in (first, names[len(first) :]):

            def begin(turn: int, some: list[str] = some) -> Task | Known | None:
                known = self._run.results()  # those of earlier turns
                if turn >= len(some) or reached(self._run, self._config.study, known) is not None:
                    return None
                return self._task(some[turn])

            crew.in_order(parallel, begin, lambda turn, outcome, some=some: self._keep(some[turn], outcome))
        if self._answered:
            self._score_answered()

    def _task(self, name: str) -> Task | Known:
        recipe = self._recipes[name]
        task = self._runner.task(name, name, recipe.kind, recipe)
        if isinstance(task, Known):
            self._dispatch.on_trial_start(name, recipe.kind)
        return task

    def _keep(self, name: str, outcome: Tried | Failed) -> None:
        if self._shared and isinstance(outcome, Tried):
            self._answered[name] = outcome
        else:
            self._end(name, outcome, None)

    def _end(self, name: str, outcome: Tried | Failed, shared: NeuronWeights | None) -> None:
        self._dispatch.on_trial_end(self._runner.keep(name, name, self._recipes[name], outcome, shared))

    def _score_answered(self) -> None:
        waiting = [_unscored(name, item) for name, item in self._answered.items()]
        variants = [v for v in [*self._runner.pool.earlier(files.trial_id(0)), *waiting] if v.kind != "merge"]
        if not variants:
            raise RunError(
                f"nex.calibration: {self._config.nex.calibration!r} takes its weights from base and parents, and all "
                "of them failed"
            )
        weights = shared_weights(sorted(variants, key=lambda v: (v.kind != "base", v.trial)), self._config.nex)
        for name, item in self._answered.items():
            self._end(name, item, weights)


def _unscored(name: str, item: Tried) -> Variant:
    return Variant(name, item.recipe.kind, True, item.answered.observation)


def say_what_the_guard_misses(runner: TrialRunner, dispatch: Observers) -> None:
    note = blind_spot(Pool(runner.pool.earlier(files.trial_id(0)), runner.pool.rules))
    if note is not None:
        dispatch.on_note(note)
