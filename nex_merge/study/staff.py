"""Which executor does the trials of a search, and how its workers come to their engines."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from nex_merge.engines.choice import engine_for
from nex_merge.engines.contracts import Engine
from nex_merge.setup.config import RunConfig
from nex_merge.setup.resolve import ResolvedConfig
from nex_merge.study.preflight import Checked
from nex_merge.workers.cluster import Cluster
from nex_merge.workers.executors import Executor, Here
from nex_merge.workers.nodes import family_engine, members
from nex_merge.workers.processes import Processes
from nex_merge.workers.serve import Setup


def executor_for(config: RunConfig, checked: Checked, note: Callable[[str], None]) -> Executor:
    """The executor that `runtime` names: a cluster, several processes, or this one. Others than this one start now."""
    if config.runtime.cluster is not None:
        return Cluster(config.runtime, config.study.parallel, note)
    if len(checked.places) > 1:
        return Processes(checked.places)
    assert checked.engine is not None, "it was made for this"
    return Here(checked.engine)


def set_up(
    executor: Executor, resolved: ResolvedConfig, checked: Checked, orders: Path, make: Callable[[], Engine] | None
) -> None:
    """Let workers make their engines. `orders`: where those of this machine keep orders of weights.

    `make`: used instead of the family's engine.
    """
    family, runtime = resolved.family, resolved.config.runtime
    if isinstance(executor, Cluster):
        executor.set_up(make or partial(family_engine, members(family, resolved.resolved), runtime))
    elif isinstance(executor, Processes):
        inside = runtime.model_copy(update={"device": checked.places[0].device_inside})
        executor.set_up(Setup(make or partial(engine_for, family, inside), orders))
    elif checked.engine is not None and checked.engine.family_weights is not None:
        checked.engine.family_weights.keep_ranks(orders)
