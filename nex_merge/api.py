"""The Python interface: searches and runs. `nex_merge` itself offers what is here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nex_merge.setup.config import RunConfig
from nex_merge.setup.resolve import resolve_config

if TYPE_CHECKING:
    from nex_merge.engines.engine import Engine
    from nex_merge.runs.run import Run
    from nex_merge.study.observers import Observer


def search(
    config: str | Path | Mapping[str, Any] | RunConfig,
    *,
    family: str | Mapping[str, Any] | None = None,
    engine: "Engine | None" = None,
    observers: "Sequence[Observer]" = (),
) -> "Run":
    """Run a search, or resume it; the run, finished.

    `config`: a configuration file, a mapping as one holds, or a `RunConfig`. `family`: another model family, by name,
    file or mapping. `engine`: what answers instead of transformers (`engines.engine.Engine`). `observers` are told of
    trials as they begin and end (`Observer`); their failures are logged and never end the search.

    Raises InputError for whatever is wrong with the input, before any work; RunError where the run folder is in use,
    every trial failed, or something other than a recipe did (the same call goes on from there).
    """
    resolved = resolve_config(config, family=family)
    # Heavy imports come after everything that can be refused without them.
    from nex_merge.study.search import run_search

    run_search(resolved, observers=observers, engine=engine)
    return open_run(resolved.run)


def open_run(path: str | Path) -> "Run":
    """The run in a folder, of this or an earlier version. Raises InputError where it is none."""
    from nex_merge.runs.run import Run

    return Run(Path(path))
