"""The merges of a search: proposed, worked on, kept and told, up to `study.parallel` of them at once."""

import json
from collections.abc import Callable
from dataclasses import replace

from nex_merge.records import MergeRecipe, SearchSpace, TrialResult
from nex_merge.runs import files
from nex_merge.runs.run import RunFolder
from nex_merge.setup.study_config import StudyConfig
from nex_merge.study.budget import reached
from nex_merge.study.crew import Crew, Failed, Known, Task
from nex_merge.study.known import known
from nex_merge.study.observers import Observer
from nex_merge.study.optuna_study import MergeStudy, NoMore, Proposal, Propose
from nex_merge.study.trial import TrialRunner, Tried


class Merges:
    """What is under way of a study's merges."""

    def __init__(
        self,
        run: RunFolder,
        study: MergeStudy,
        runner: TrialRunner,
        space: SearchSpace,
        propose: Propose,
        observer: Observer,
        told: Callable[[RunFolder], None] = lambda run: None,
    ) -> None:
        """`told` is called after every merge that was told."""
        self._run, self._study, self._runner, self._space = run, study, runner, space
        self._propose, self._observer, self._told = propose, observer, told
        self._config: StudyConfig = runner.terms.config.study
        self._open: dict[int, Proposal] = {}
        self._recipes: dict[str, str] = {}  # of scored merges, by trial, as text: each file is read once

    def go_on(self, crew: Crew) -> None:
        """Evaluate merges until `study.trials` of them are finished, lost ones again, or a budget is reached.

        Raises RunError if the database stays unavailable.
        """
        crew.in_order(self._config.parallel, self._begin, self._keep)
        if (message := reached(self._run, self._config, self._run.results())) is not None:
            self._observer.on_note(message)

    def _begin(self, number: int) -> Task | Known | None:
        trial = files.trial_id(number)
        results = self._run.results()
        if reached(self._run, self._config, known(trial, results, self._config.parallel)) is not None:
            return None
        try:
            proposal = self._study.proposal(number, self._propose)
        except NoMore:
            return None
        if proposal is None:
            return Known(None)
        self._open[number] = proposal
        recipe = proposal.recipe
        if (result := self._run.result(trial)) is not None:
            return Known(result)  # stopped before it was told
        if (earlier := self._same_recipe(trial, recipe)) is not None:
            self._observer.on_trial_start(trial, recipe.method)
            return Known(_duplicate(trial, recipe, earlier))
        task = self._runner.task(trial, recipe.method, recipe.method, recipe)
        if isinstance(task, Known):
            self._observer.on_trial_start(trial, recipe.method)
        return task

    def _keep(self, number: int, outcome: Tried | Failed | TrialResult | None) -> None:
        """Keep what a merge gave, unless it is kept already, and tell it."""
        if outcome is None:
            return
        proposal = self._open.pop(number)
        trial, recipe = files.trial_id(number), proposal.recipe
        if (result := self._run.result(trial)) is None:
            result = self._result(trial, recipe, outcome)
            self._observer.on_trial_end(result)
        self._study.tell(proposal, result)
        self._told(self._run)

    def _result(self, trial: str, recipe: MergeRecipe, outcome: Tried | Failed | TrialResult) -> TrialResult:
        if not isinstance(outcome, TrialResult):
            shared = self._runner.pool.weights(int(trial))
            return self._runner.keep(trial, recipe.method, recipe, outcome, shared)
        files.write_recipe(self._run.folder(trial), recipe)
        self._run.write(outcome)
        return outcome

    def _same_recipe(self, trial: str, recipe: MergeRecipe) -> TrialResult | None:
        """The scored merge with the same recipe that a trial knows, if any; seeds tell stochastic methods apart."""
        if any(method.stochastic for method in self._space.methods if method.name == recipe.method):
            return None
        wanted = json.dumps(recipe.config, sort_keys=True)
        results = known(trial, self._run.results(), self._config.parallel)
        earlier = [r for r in results if r.kind == "merge" and r.state in files.SCORED]
        return next((result for result in earlier if self._recipe(result.trial) == wanted), None)

    def _recipe(self, trial: str) -> str:
        if trial not in self._recipes:
            self._recipes[trial] = json.dumps(self._run.recipe_config(trial), sort_keys=True)
        return self._recipes[trial]


def _duplicate(trial: str, recipe: MergeRecipe, earlier: TrialResult) -> TrialResult:
    return replace(
        earlier,
        trial=trial,
        state="duplicate",
        reason=f"the same recipe as {files.trial_name(earlier.trial)}",
        same_as=earlier.trial,
        parameters=recipe.parameters,
        seconds={},
        tokens=0,
        is_reference=False,
    )
