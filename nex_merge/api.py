"""The Python interface: searches and runs, also available from `nex_merge` itself."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nex_merge.setup.config import RunConfig
from nex_merge.setup.resolve import resolve_config
from nex_merge.terminal import kernel

if TYPE_CHECKING:
    import pandas

    from nex_merge.engines.contracts import Engine
    from nex_merge.records import TrialResult
    from nex_merge.report.figures import Figure
    from nex_merge.study.observers import Observer


class Run:
    """A finished or running search: its ranking, its trials, and their export."""

    def __init__(self, path: str | Path) -> None:
        """Raises InputError if `path` is not a run folder, or is one of a newer version."""
        from nex_merge.runs.run import RunFolder

        self.folder = RunFolder(Path(path))

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """What notebooks show: the pick, the first ranks, the verdict and the next steps."""
        from nex_merge.report.notebook import run_html

        return run_html(self.folder)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def leaderboard(self) -> "pandas.DataFrame":
        """The ranking, best first, with every column of leaderboard.csv."""
        from nex_merge.runs.leaderboard import as_frame, read_rows

        return as_frame(read_rows(self.folder))

    def results(self) -> "list[TrialResult]":
        """All finished trials: base, parents, then merges by number."""
        return self.folder.results()

    def trial(self, id: str | int) -> "TrialResult":
        """A finished trial: `base`, a parent's name, or a merge's number. Raises InputError if there is none."""
        return self.folder.find(str(id))

    def best(self, by: str | None = None) -> "TrialResult":
        """The merge that ranks first by a measure (default: the objective).

        Raises InputError if there is none, or if there are several objectives and `by` is None.
        """
        from nex_merge.runs.leaderboard import best_merge

        return best_merge(self.folder, by)

    def study(self) -> Any:
        """The merges as an `optuna.Study` in memory, with their present values, for `optuna.visualization`.

        Trials have the numbers of the merges, every column of the leaderboard as a user attribute, and their violations
        as constraints; base and parents, which have no parameters, are not in it. The search's own study, in study.db,
        keeps the values of the moment at which each trial was told.

        Raises InputError if there is no study to read.
        """
        from nex_merge.study.snapshot import study_now

        return study_now(self.folder)

    def plot(self, name: str = "history") -> "Figure":
        """A figure of the report, as plotly's Figure: `history`, `importance`, `parallel`, `front`, `work`, …

        `measure-NAME` is the objective over another measure, `accuracy-NAME` accuracy over a measure. Raises InputError
        naming the figures that this run has if it lacks this one, or if a file of the run is damaged.
        """
        from nex_merge.report.notebook import figure_of

        return figure_of(self.folder, name)

    def export(
        self,
        out: str | Path,
        trial: str | int | None = None,
        by: str | None = None,
        *,
        dtype: str | None = None,
        max_shard_size: str = "5GB",
        push: str | None = None,
        public: bool = False,
    ) -> Path:
        """Write a trial as a checkpoint, checked against what was scored. Returns its folder.

        By default the best merge, by the objective or by the measure `by`. `dtype`: bfloat16, float16 or float32; in
        another one than the weights were scored in, they are rounded from those. `max_shard_size`: the most that a file
        of weights holds. `push`: a repository on the hub, OWNER/NAME, that it is uploaded to once it is proved; a new
        one is private unless it is to be `public`.

        Raises InputError if there is nothing to export or `out` is in use, RunError if the checkpoint would not be the
        variant that was scored, or can't be pushed.
        """
        from nex_merge.engines.quiet import quietly
        from nex_merge.runs.push import check_push, push_export

        check_push(push, public)
        name = None if trial is None else str(trial)
        with quietly():
            from nex_merge.runs.export import export_trial

            for _ in export_trial(self.folder, name, Path(out), by, dtype, max_shard_size):
                pass
        if push is not None:
            push_export(Path(out), push, public, (self.best(by) if name is None else self.trial(name)).trial)
        return Path(out)


def search(
    config: str | Path | Mapping[str, Any] | RunConfig,
    *,
    family: str | Mapping[str, Any] | None = None,
    engine: "Engine | Callable[[], Engine] | None" = None,
    observers: "Sequence[Observer]" = (),
    sampler: Any = None,
) -> Run:
    """Run or resume a search. Returns the finished run.

    `config`: a configuration file, its content as a mapping, or a `RunConfig`. `family`: another model family, by name,
    file or mapping. `engine`: replaces the transformers engine (`engines.contracts.Engine`), or makes one: with
    `runtime.workers`, every worker makes its own, so that it has to be a class or function that can be imported.
    `observers`: callbacks (`Observer`), whose exceptions are logged and never end the search. `sampler`: any Optuna
    sampler, which takes over from `study.sampler` after the first guesses and sees earlier trials under their present
    values. It costs exactness: what it draws depends on its own state, so that a search that was stopped and resumed
    tries other merges than one that was not. Trials finished stay as they are. Give the sampler again to go on with it;
    without it, the search goes on with `study.sampler`.

    In a notebook, a table shows the ranking as it grows.

    Handles no signals: Ctrl-C raises KeyboardInterrupt as ever, after ranking what is done.

    Raises InputError if the input is invalid, before any work; RunError if the run folder is in use, every trial
    failed, or something other than a recipe failed (the same call resumes the search).
    """
    resolved = resolve_config(config, family=family)
    # Heavy imports come last, so that invalid input fails fast.
    from nex_merge.engines.quiet import quietly

    with quietly():
        from nex_merge.study.search import run_search

        shown: list[Observer] = []
        if kernel() is not None:
            from nex_merge.report.notebook import LiveTable

            shown = [LiveTable()]
        run_search(resolved, observers=[*observers, *shown], engine=engine, sampler=sampler)
    return open_run(resolved.run)


def open_run(path: str | Path) -> Run:
    """Open a run folder of this or an earlier version. Raises InputError if it is not a run folder."""
    return Run(path)
