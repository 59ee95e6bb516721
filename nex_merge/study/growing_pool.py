"""The pool of variants during a search: shared neuron weights, and the current values of earlier trials.

Everything here depends on trial numbers only, so that a resumed search computes the same.
"""

from collections.abc import Mapping, Sequence

from nex_merge.measures.estimates import Objective, whole_values
from nex_merge.measures.measure import Measure, Pool, shared_weights
from nex_merge.nex.calibration import pool_size
from nex_merge.records import NeuronWeights, TrialResult, Variant
from nex_merge.runs import files
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import NexConfig
from nex_merge.study.known import horizon, known


class GrowingPool:
    """The run's variants as of any trial."""

    def __init__(self, run: RunFolder, nex: NexConfig) -> None:
        self._run, self._nex, self._parallel = run, nex, run.config.study.parallel
        # Without an audit's labels, so that a search that is resumed after one draws the same merges.
        self.rules = run.rules(nex, audited=False)
        self._variants: dict[str, Variant] = {}
        self._size: int | None = None
        self._weights: NeuronWeights | None = None
        self._values: dict[str, dict[str, float]] = {}  # by measure, then trial, under the present weights
        self._latest: Pool | None = None

    def earlier(self, trial: str) -> list[Variant]:
        """The variants with responses that a trial knows: base, parents, merges by number."""
        return [self._variant(result) for result in self._known(trial) if result.state in files.SCORED]

    def with_new(self, variant: Variant, weights: NeuronWeights | None) -> Pool:
        """The pool that a new variant is valued in: those that it knows, and itself."""
        return self._pool([*self.earlier(variant.trial), variant], weights)

    def _pool(self, variants: Sequence[Variant], weights: NeuronWeights | None) -> Pool:
        """A pool, its answers read once if they are those of the latest.

        Without others under way, the next merge knows the variants that the last one was valued among.
        """
        latest = self._latest
        if latest is not None and [v.trial for v in latest.variants] == [v.trial for v in variants]:
            return Pool(variants, self.rules, weights, same=latest)
        self._latest = Pool(variants, self.rules, weights)
        return self._latest

    def _known(self, trial: str) -> list[TrialResult]:
        return known(trial, self._run.results(), self._parallel)

    def _variant(self, result: TrialResult) -> Variant:
        if result.trial not in self._variants:
            self._variants[result.trial] = self._run.variant(result, self._nex)
        return self._variants[result.trial]

    def weights(self, number: int) -> NeuronWeights | None:
        """The shared neuron weights for the merge with this number; None if each variant has its own."""
        if self._nex.calibration in ("self", "crossfit"):
            return None
        size = pool_size(horizon(number, self._parallel)) if self._nex.calibration == "pool" else 0
        if size != self._size:
            below = [r for r in self._run.results() if r.kind != "merge" or int(r.trial) < size]
            variants = [self._variant(result) for result in below if result.state in files.SCORED]
            self._size, self._weights, self._values = size, shared_weights(variants, self._nex), {}
        return self._weights

    def values(self, objective: Objective, number: int) -> Mapping[str, tuple[float, ...]] | None:
        """The current objectives of the merges that a number knows, if they have all; None: recorded ones are final."""
        measures = [one.measure for one in objective.all]
        if not any(measure.is_pooled(self._nex) for measure in measures):
            return None
        columns = [self._column(measure, number) for measure in measures]
        trials = set(columns[0]).intersection(*columns)
        return {trial: tuple(column[trial] for column in columns) for trial in sorted(trials)}

    def _column(self, measure: Measure, number: int) -> Mapping[str, float]:
        """The current values of a measure for the merges that this number knows."""
        trial = files.trial_id(number)
        before = [result for result in self._known(trial) if result.kind == "merge"]
        if not measure.is_pooled(self._nex):
            return {r.trial: value for r in before if (value := r.value(measure.name)) is not None}
        earlier = self.earlier(trial)
        weights = self.weights(number)
        if measure.needs_pool:
            self._values.pop(measure.name, None)
        values = self._values.setdefault(measure.name, {})
        new = [v for v in earlier if v.kind == "merge" and v.trial not in values]
        if new:
            pool = self._pool(earlier, weights) if measure.needs_pool else Pool(new, self.rules, weights)
            for variant, value in zip(pool.variants, whole_values(measure, pool), strict=True):
                if value.value is not None and variant.kind == "merge":
                    values[variant.trial] = value.value
        for result in before:  # a duplicate has the value of its original
            if result.same_as in values:
                values[result.trial] = values[result.same_as]
        return values
