"""The settings of `study`: what a search tries, by what it ranks, and where it ends."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from nex_merge.setup.paths import DatabaseName, PathName
from nex_merge.setup.strict import Strict, is_number
from nex_merge.setup.yaml_files import as_yaml


def split_bound(text: Any) -> tuple[str, float]:
    """A bound such as '>= 0.9' as its sign and number. Raises ValueError, in words that follow "expected"."""
    match = re.fullmatch(r"\s*(>=|<=)\s*([-+.0-9eE]+)\s*", text) if isinstance(text, str) else None
    try:
        number = float(match[2]) if match is not None else math.inf
    except ValueError:
        number = math.inf
    if match is None or not math.isfinite(number):
        raise ValueError("a bound like '>= 0.9' or '<= 800'")
    return match[1], number


def _spelled(text: Any) -> str:
    """A bound as configurations keep it, so that the same bound is the same text."""
    sign, number = split_bound(text)
    return f"{sign} {number:.15g}"


Bound = Annotated[str, BeforeValidator(_spelled)]


class FinalConfig(Strict):
    top: int = Field(default=5, ge=1, description="merges that can be picked in the final, the best of the search")
    share: float = Field(default=0.33, gt=0, lt=1, description="share of the prompts that is kept for the final")


Direction = Literal["auto", "maximize", "minimize"]
_SINGLE = ("objective", "direction")  # what `objectives` replace


class StudyConfig(Strict):
    trials: int = Field(default=40, ge=0, description="number of merges to try, not counting the baselines")
    recipes: list[PathName] | None = Field(
        default=None,
        min_length=1,
        description="mergekit configurations to rank instead of searching a space: files, and folders of *.yml and "
        "*.yaml; `trials` is their number, or takes the first ones",
    )
    guesses: list[dict[str, bool | int | float | str]] = Field(
        default=[],
        description="merges of the search space to try right after equal weights, each by all its study parameters, as "
        "trials have them, such as {weight.mine: 0.5, density.mine: 0.4, weight.other: 0.3, density.other: 0.4}",
    )
    sampler: Literal["tpe", "qmc", "random"] = Field(
        default="tpe",
        description="what follows the first guesses: Sobol points and TPE (tpe), Sobol points alone (qmc), or random "
        "draws (random)",
    )
    warm_start: PathName | None = Field(
        default=None,
        description="run folder with the same search space, models and objective, whose trials the sampler begins "
        "with; they are kept in the new run",
    )
    objective: str = Field(default="nex", description="measure that variants are ranked by; see `nex-merge measures`")
    direction: Direction = Field(
        default="auto", description="direction of optimization; auto: the objective's usual one"
    )
    objectives: dict[str, Direction] | None = Field(
        default=None,
        description="two or three objectives with their directions, such as {consensus: auto, mean_tokens: minimize}, "
        "instead of objective and direction: the leaderboard ranks merges by Pareto fronts and there is no single "
        "pick. Where a bound on the others will do, one objective with constraints is the simpler search",
    )
    constraints: dict[str, Bound] = Field(
        default={},
        description="bounds on measures, such as {finished: '>= 0.9', mean_tokens: '<= 800'}: merges beyond one are "
        "infeasible and rank below all others",
    )
    timeout: float | None = Field(
        default=None, gt=0, description="budget in hours that trials took; once reached, no further trial is started"
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="budget of generated tokens; once reached, no further trial is started"
    )
    pruner: Literal["wilcoxon", "none"] = Field(
        default="none",
        description="wilcoxon: merges answer the prompts in blocks, and one that is unlikely to overtake the best so "
        "far, by the prompts that both have answered, ends early (objectives that are read from answers); none: every "
        "merge answers all prompts",
    )
    block: int = Field(
        default=8,
        ge=1,
        description="prompts after which a merge may first end early; next after twice as many, and so on",
    )
    final: FinalConfig | None = Field(
        default=None,
        description="afterwards, the best merges, base, parents and equal weights answer prompts that the search has "
        "not seen; the ranking that leads comes from there. null: no final",
    )
    parallel: int = Field(
        default=1,
        ge=1,
        description="trials that may be under way at once, whoever does them: a merge is proposed when all merges but "
        "the last parallel - 1 before it are told, and knows those alone",
    )
    seed: int = Field(default=0, ge=0, description="seed of the sampler and of stochastic merge methods")
    storage: DatabaseName | None = Field(
        default=None,
        description="Optuna storage URL; null: study.db in the run folder. A password in it is used and not kept; the "
        "environment variable NEX_MERGE_STORAGE, a whole URL, takes its place",
    )
    baselines: bool = Field(default=True, description="score the baselines (base and parents) before the merges")

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, given: Any) -> Any:
        """Reads `max_mean_tokens`, as the token budget was called before there were other constraints."""
        if not isinstance(given, Mapping) or "max_mean_tokens" not in given:
            return given
        budget = given["max_mean_tokens"]
        rest = {name: value for name, value in given.items() if name != "max_mean_tokens"}
        if budget is None:
            return rest
        if not is_number(budget) or budget <= 0:
            raise ValueError(f"max_mean_tokens to be a positive number, got {as_yaml(budget)}")
        bound = f"<= {budget:.15g}"
        if given.get("constraints"):
            raise ValueError(
                "either constraints or max_mean_tokens, their former name for a bound on mean_tokens, got both; write "
                f"constraints.mean_tokens: '{bound}' instead"
            )
        return {**rest, "constraints": {"mean_tokens": bound}}

    @model_validator(mode="before")
    @classmethod
    def _one_objective_or_several(cls, given: Any) -> Any:
        """Refuses `objectives` beside `objective` or `direction`; null is as good as not given."""
        if not isinstance(given, Mapping) or given.get("objectives") is None:
            return given
        several = given["objectives"]
        if isinstance(several, Mapping) and not 2 <= len(several) <= 3:
            raise ValueError(
                f"objectives to name two or three measures, got {len(several)}; one is study.objective, with "
                "study.constraints for bounds on others"
            )
        both = [name for name in _SINGLE if given.get(name) is not None]
        if both:
            raise ValueError(
                f"either {both[0]} or objectives, got both; to use objectives, leave {both[0]} out (on the command "
                f"line: --set study.{both[0]}=null)"
            )
        return {name: value for name, value in given.items() if name not in _SINGLE}

    @model_serializer(mode="wrap")
    def _as_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `objective` and `direction` where `objectives` replace them, so that it can be read again."""
        saved = handler(self)
        return saved if self.objectives is None else {k: v for k, v in saved.items() if k not in _SINGLE}
