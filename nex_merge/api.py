"""The Python interface: searches and runs, also available from `nex_merge` itself."""

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
    sampler: Any = None,
) -> "Run":
    """Run or resume a search. Returns the finished run.

    `config`: a configuration file, its content as a mapping, or a `RunConfig`. `family`: another model family, by name,
    file or mapping. `engine`: replaces the transformers engine (`engines.engine.Engine`). `observers`: callbacks
    (`Observer`), whose exceptions are logged and never end the search. `sampler`: any Optuna sampler, which takes over
    from `study.sampler` after the first guesses and sees earlier trials under their present values. It costs exactness:
    what it draws depends on its own state, so that a search that was stopped and resumed tries other merges than one
    that was not. Trials finished stay as they are. Give the sampler again to go on with it; without it, the search goes
    on with `study.sampler`.

    Handles no signals: Ctrl-C raises KeyboardInterrupt as ever, after ranking what is done.

    Raises InputError if the input is invalid, before any work; RunError if the run folder is in use, every trial
    failed, or something other than a recipe failed (the same call resumes the search).
    """
    resolved = resolve_config(config, family=family)
    # Heavy imports come last, so that invalid input fails fast.
    from nex_merge.study.search import run_search

    run_search(resolved, observers=observers, engine=engine, sampler=sampler)
    return open_run(resolved.run)


def open_run(path: str | Path) -> "Run":
    """Open a run folder of this or an earlier version. Raises InputError if it is not a run folder."""
    from nex_merge.runs.run import Run

    return Run(Path(path))
