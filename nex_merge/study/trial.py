"""MergeRecipe -> TrialResult: a trial is planned here, worked on anywhere (`workers/`), and kept here."""

import itertools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from nex_merge import interrupts
from nex_merge.engines.observe import ObserveSettings, timed
from nex_merge.errors import TrialError
from nex_merge.measures.constraints import violations
from nex_merge.measures.estimates import estimate_new
from nex_merge.measures.guard import COLLAPSE, collapse
from nex_merge.measures.text import text_figures
from nex_merge.merging import mergekit_config
from nex_merge.nex.scoring import score
from nex_merge.records import (
    MergeRecipe,
    NeuronWeights,
    Observation,
    Response,
    TrialResult,
    Variant,
)
from nex_merge.runs import files
from nex_merge.runs.recapture import keep_activations
from nex_merge.runs.run import RunFolder
from nex_merge.study.answered import forget_answered, keep_answered, read_answered
from nex_merge.study.crew import Failed, Known, Task
from nex_merge.study.growing_pool import GrowingPool
from nex_merge.study.known import known
from nex_merge.study.neighbours import nearest
from nex_merge.study.race import Race, Stop
from nex_merge.study.terms import Terms
from nex_merge.workers.job import Answered, Job, Work

# Earlier merges whose answers are drafts; what more of them gain is in results/studies/speed.md.
NEIGHBOURS = 4


@dataclass(frozen=True)
class Tried:
    """A variant whose responses are on disk, before it is scored."""

    name: str
    recipe: MergeRecipe
    answered: Answered
    stop: Stop | None = None  # None: it has answered all prompts


class TrialRunner:
    """Plans and keeps trials under the same terms, with the pool of variants."""

    def __init__(
        self,
        terms: Terms,
        run: RunFolder,
        members_unchanged: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`members_unchanged`: what every variant is merged and answers within (`MemberFiles.unchanged`)."""
        self.terms, self._config, self._run, self._members_unchanged = terms, terms.config, run, members_unchanged
        self.pool = GrowingPool(run, terms.config.nex)

    def under(self, terms: Terms, run: RunFolder) -> "TrialRunner":
        """The same for trials under other terms in another run folder."""
        return TrialRunner(terms, run, self._members_unchanged)

    def work(self, trial: str, name: str, recipe: MergeRecipe) -> Work[Tried]:
        """The jobs of a trial, for one engine; what they give is planned here and kept.

        Raises TrialError as `perform` does, InputError if a member's files changed before or meanwhile.
        """
        folder = self._run.folder(trial)
        with self._members_unchanged():
            # The recipe is on disk before anything can go wrong with it.
            files.write_recipe(folder, replace(recipe, config=mergekit_config(recipe.config)))
            planning: dict[str, float] = {}
            with timed("generate", planning):  # drafts are part of it
                job, stop = self.plan(trial, recipe), None
            if self._config.study.pruner != "none" and recipe.kind == "merge" and not self._is_reference(recipe):
                answered, stop = yield from self._race(job)
            else:
                answered = yield job
            interrupts.check()
            self._run.check_driver()
            files.write_responses(folder, answered.observation.responses)
            if job.settings.activations is not None:
                keep_activations(self._run, trial, answered.weights_sha256, answered.observation)
            seconds = {**answered.seconds, "generate": answered.seconds["generate"] + planning["generate"]}
            answered = replace(answered, seconds=seconds)
            keep_answered(self._run, recipe, answered, stop)
        return Tried(name, recipe, answered, stop)

    def plan(self, trial: str, recipe: MergeRecipe) -> Job:
        """The work of a trial that answers all prompts, with the drafts that it knows of."""
        activations = self._config.activations if self._config.activations.capture == "all" else None
        settings = ObserveSettings(self._config.generation, activations, self._config.nex)
        return Job(trial, recipe, self.terms.prompt_ids, settings, self.terms.asked, self._drafts(trial, recipe))

    def _is_reference(self, recipe: MergeRecipe) -> bool:
        """Whether this is the merge with equal weights: it answers everything, as others are held against it."""
        return recipe.kind == "merge" and dict(recipe.parameters) == self.terms.reference

    def _race(self, job: Job) -> Work[tuple[Answered, Stop | None]]:
        """A job, its prompts answered block by block up to where the trial ends. Finished blocks are kept."""
        answering = replace(job, asked=(), settings=replace(job.settings, activations=None))
        loaded = yield answering
        answering = replace(answering, weights_sha256=loaded.weights_sha256)
        seconds = dict(loaded.seconds)
        with timed("generate", seconds):  # with what is decided between the blocks
            responses, stop = yield from self._in_blocks(answering, files.blocks(loaded.weights_sha256))
        read = yield replace(answering, answered=responses, settings=job.settings)
        return replace(read, seconds={**seconds, **read.seconds}), stop

    def _in_blocks(self, job: Job, name: str) -> Work[tuple[list[Response], Stop | None]]:
        """The responses up to where the trial ends. `name`: the file that keeps them, after every block."""
        folder, earlier = self._run.folder(job.trial), self.pool.earlier(job.trial)
        race = Race(self.terms, [v for v in earlier if v.kind != "merge"], self.pool.rules)
        responses = files.read_responses(folder, name) if (folder / name).exists() else []
        done = {response.prompt for response in responses}
        asked: set[int] = set()
        for block in race.blocks():
            missing = [prompt for prompt in block if prompt not in done]
            if missing:
                answered = yield replace(job, asked=missing, answered=responses)
                responses = list(answered.observation.responses)
                interrupts.check()
                files.write_responses(folder, responses, name)
            asked |= set(block)
            so_far = [response for response in responses if response.prompt in asked]
            if len(asked) < len(self.terms.asked):
                stop = race.stop(earlier, Variant(job.trial, "merge", False, Observation(so_far)))
                if stop is not None:
                    return so_far, stop
        return responses, None

    def _drafts(self, trial: str, recipe: MergeRecipe) -> list[Response]:
        """Drafts: the responses of the baselines that precede this trial, and of the known merges nearest to it.

        Parents that answer at the same time have base's alone. The same after a resume. What comes last is continued
        where several texts could be.
        """
        parallel = self._config.study.parallel
        before = list(itertools.takewhile(lambda name: name != trial, self.terms.members))
        if parallel > 1 and recipe.kind != "merge":
            before = before[:1]
        merges = {
            result.trial: result.parameters
            for result in known(trial, self._run.results(), parallel)
            if result.kind == "merge" and result.state in files.SCORED
        }
        before += nearest(recipe.parameters, merges, NEIGHBOURS)
        kept = [name for name in before if (self._run.folder(name) / files.RESPONSES).exists()]
        return [response for name in kept for response in self._run.responses(name)]

    def task(self, trial: str, name: str, shown: str, recipe: MergeRecipe) -> Task | Known:
        """A trial's work, or what it gave before the search was stopped. `shown`: its method, as workers show it."""
        if (found := read_answered(self._run, trial, recipe)) is not None:
            return Known(Tried(name, recipe, *found))
        return Task(trial, shown, lambda: self.work(trial, name, recipe), recipe)

    def keep(
        self, trial: str, name: str, recipe: MergeRecipe, outcome: Tried | Failed, shared: NeuronWeights | None
    ) -> TrialResult:
        """Keep what a trial gave, by `finish`; one that failed, or that can't be scored, is kept as failed."""
        if isinstance(outcome, Tried):
            try:
                return self.finish(outcome, shared)
            except TrialError as error:
                interrupts.check()  # which may have come in its place
                outcome = Failed(error, sum(outcome.answered.seconds.values()))
        result = _failed(trial, name, recipe, outcome)
        self._run.write(result)
        return result

    def finish(self, tried: Tried, shared: NeuronWeights | None) -> TrialResult:
        """Keep a trial: every measure's value; result.json.

        `shared`: the neuron weights shared by all variants, None if each has its own. Raises TrialError if no response
        has activation mass to score.
        """
        began = time.perf_counter()
        recipe, answered, stop = tried.recipe, tried.answered, tried.stop
        trial, observation = answered.trial, answered.observation
        nex_score = None
        if observation.evidence is not None and observation.analyses is not None:
            nex_score = score(observation.evidence, observation.analyses, self._config.nex.calibration, shared)
            if nex_score.nex is None:
                raise TrialError("no response has any activation mass, so there is nothing to score")
        observation = replace(observation, text=text_figures(observation.responses))
        lost_to = None if stop is None else stop.lost_to
        variant = Variant(trial, recipe.kind, stop is None, observation, score=nex_score, lost_to=lost_to)
        pool = self.pool.with_new(variant, shared)
        estimates = estimate_new(pool, shared)
        state, beyond, reasons = "complete", {}, []
        if recipe.kind == "merge":
            beyond, reasons = violations(self.terms.constraints, estimates)
            if stop is None:
                collapsed, why = collapse(pool)
            else:
                collapsed, why = stop.violation, stop.reason
            if collapsed is not None:
                beyond = {COLLAPSE: collapsed, **beyond}
            state = "infeasible" if reasons else "complete"
            if why is not None:
                state, reasons = "collapsed" if stop is None else stop.state, [why, *reasons]
        spent = answered.seconds.get("score", 0.0) + time.perf_counter() - began
        result = TrialResult(
            trial=trial,
            kind=recipe.kind,
            name=tried.name,
            method=recipe.method,
            seed=recipe.seed,
            state=state,
            reason="; ".join(reasons) or None,
            parameters=recipe.parameters,
            estimates=estimates,
            score=nex_score,
            violation=max(beyond.values(), default=None),
            violations=beyond,
            weights_sha256=answered.weights_sha256,
            seconds={**answered.seconds, "score": spent},
            tokens=sum(len(response.token_ids) for response in observation.responses),
            is_reference=self._is_reference(recipe),
            answered=len({response.prompt for response in observation.responses}) / len(self.terms.asked),
            lost_to=lost_to,
        )
        interrupts.check()
        self._run.write(result, observation)
        forget_answered(self._run, trial)
        for blocks in self._run.folder(trial).glob(files.blocks("*")):
            blocks.unlink()
        return result


def _failed(trial: str, name: str, recipe: MergeRecipe, outcome: Failed) -> TrialResult:
    return TrialResult(
        trial=trial,
        kind=recipe.kind,
        name=name,
        method=recipe.method,
        seed=recipe.seed,
        state="failed",
        reason=str(outcome.error),
        parameters=recipe.parameters,
        seconds={"total": outcome.seconds},
    )
