"""Commands for searches: run, watch, rank, rescore."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nex_merge.cli.app import LOOK, SEARCH, Format, Run, Set, app, example, path_value, say_next, say_next_steps
from nex_merge.cli.logs import check_log, logged
from nex_merge.errors import InputError
from nex_merge.passwords import masked_setting
from nex_merge.setup import config as configuration
from nex_merge.setup.paths import expand
from nex_merge.terminal import echo

if TYPE_CHECKING:
    from nex_merge.setup.resolve import ResolvedConfig


def _overrides(
    settings: list[str] | None,
    trials: int | None,
    family: str | None,
    out: Path | None,
    seed: int | None,
    workers: str | None,
) -> dict[str, Any]:
    result = configuration.override(settings or [])
    study = {key: value for key, value in (("trials", trials), ("seed", seed)) if value is not None}
    runtime = None if workers is None else {"workers": int(workers) if workers.isdecimal() else workers}
    given = (("study", study or None), ("family", family), ("output", str(out) if out else None), ("runtime", runtime))
    for key, value in given:
        if value is not None:
            result = configuration.merge_mappings(result, {key: value})
    return result


Config = Annotated[str, typer.Argument(metavar="CONFIG", help="a file like configs/qwen3_ties.yaml")]
Trials = Annotated[int | None, typer.Option(min=0, help="number of merges to try")]
Family = Annotated[str | None, typer.Option(help="use another model family")]
Out = Annotated[Path | None, typer.Option(help="the run folder", callback=path_value)]
Workers = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="processes that do trials at the same time; with it, a new search has twice as many trials under way "
        "(study.parallel), unless that is given",
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="seed of the sampler and of stochastic merges")]


@app.command(rich_help_panel=SEARCH, epilog=example("search configs/qwen3_ties.yaml --trials 12"))
def search(
    config: Config,
    trials: Trials = None,
    family: Family = None,
    out: Out = None,
    seed: Seed = None,
    workers: Workers = None,
    settings: Set = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check and estimate only, like `validate`")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="start over; an earlier run is renamed")] = False,
    standby: Annotated[
        bool, typer.Option("--standby", help="wait for another search that is at work on this run, then take over")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="print the leaderboard alone: no progress, no next steps")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="show the seconds of every stage, and warnings of libraries")
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log-file",
            metavar="FILE",
            callback=path_value,
            help="also add progress, warnings and what ended the search to a file outside the run folder, with --quiet "
            "as well",
        ),
    ] = None,
) -> None:
    """Run a search, or resume it, and print the leaderboard."""
    from nex_merge.setup.resolve import resolve_config

    if quiet and verbose:
        raise InputError("--quiet: says less, and --verbose more; give one of them")
    if verbose and os.environ.get("TRANSFORMERS_VERBOSITY") == "error":  # a user's own choice may say more
        os.environ["TRANSFORMERS_VERBOSITY"] = "warning"
    overrides = _overrides(settings, trials, family, out, seed, workers)
    if log is not None:
        _check_log(log, config, overrides)
    if dry_run:
        _print_estimate(config, overrides, workers, fresh)
        _name_search(config, trials, family, out, seed, workers, settings)
        return
    with logged(log) as file:
        resolved, said = _with_workers(resolve_config(config, overrides, fresh=fresh), workers)
        # Heavy imports come last, so that invalid input fails fast.
        from nex_merge.measures.estimates import objective_of
        from nex_merge.study.observers import Observers
        from nex_merge.study.progress import LogFile, Progress
        from nex_merge.study.search import run_search

        objective = objective_of(resolved.config.study)
        observers = [] if quiet else [Progress(objective, with_stages=verbose)]
        observers += [] if file is None else [LogFile(objective, file)]
        for line in (f"{resolved.source}: family {resolved.family.name}, run folder {resolved.run}", *said):
            Observers(observers).on_note(line)
        rows = run_search(resolved, fresh, observers, standby=standby)
    from nex_merge.runs.results import read_reliability
    from nex_merge.runs.tables import count_trials, print_table

    title = f"{resolved.run}: {count_trials(rows)} under calibration {resolved.config.nex.calibration}, best first"
    reliability = read_reliability(resolved.run)
    print_table(rows, title, objective, reliability, rows, run=resolved.run)
    if not quiet:
        echo(err=True)
        say_next_steps(rows, objective, reliability, resolved.run)
        say_next("Write an HTML report", "report", resolved.run, "--open")


def _check_log(log: Path, config: str, overrides: dict[str, Any]) -> None:
    """Raise InputError, before anything is written, if a log can't be."""
    run = None
    with suppress(InputError, ValueError):  # what is wrong with a configuration is said later, in the log as well
        output = configuration.merge_mappings(configuration.read_config(config)[0], overrides).get("output")
        run = Path(expand(output)) if isinstance(output, str) else None
    check_log(log, run)


@app.command(rich_help_panel=SEARCH, epilog=example("validate configs/qwen3_ties.yaml --trials 12"))
def validate(
    config: Config,
    trials: Trials = None,
    family: Family = None,
    out: Out = None,
    seed: Seed = None,
    workers: Workers = None,
    settings: Set = None,
) -> None:
    """Check a search before the first merge, and estimate its cost."""
    _print_estimate(config, _overrides(settings, trials, family, out, seed, workers), workers)
    _name_search(config, trials, family, out, seed, workers, settings)


def _name_search(
    config: str,
    trials: int | None,
    family: str | None,
    out: Path | None,
    seed: int | None,
    workers: str | None,
    settings: list[str] | None,
) -> None:
    """Name the search that was checked, with its options."""
    options = {"--trials": trials, "--family": family, "--out": out, "--seed": seed, "--workers": workers}
    given = [word for name, value in options.items() if value is not None for word in (name, value)]
    say_next(
        "Search",
        "search",
        config,
        *given,
        *(word for item in settings or () for word in ("--set", masked_setting(item))),
    )


def _with_workers(resolved: "ResolvedConfig", workers: str | None) -> "tuple[ResolvedConfig, list[str]]":
    """A new search with --workers has as many trials under way as keep them busy, which is said."""
    if workers is None or "parallel" in resolved.config.study.model_fields_set:
        return resolved, []
    from nex_merge.setup.resolve import with_parallel
    from nex_merge.workers.places import count_of

    parallel = 2 * count_of(resolved.config.runtime)
    said = (
        f"study.parallel: {parallel}, two for each worker. It is part of the search: what is tried, and the "
        "leaderboard, depend on it, and not on how many workers there are"
    )
    return replace(resolved, config=with_parallel(resolved.config, parallel)), [said]


def _print_estimate(config: str, overrides: dict[str, Any], workers: str | None, fresh: bool = False) -> None:
    from nex_merge.setup.resolve import resolve_config

    resolved, said = _with_workers(resolve_config(config, overrides, fresh=fresh), workers)
    from nex_merge.study.estimate import estimate

    for line in said:
        echo(line, err=True)
    for line in estimate(resolved, fresh, lambda text: echo(text, err=True)):
        echo(line)


@app.command(rich_help_panel=LOOK, epilog=example("leaderboard results/qwen3_ties --sort consensus --top 5"))
def leaderboard(
    run: Run,
    top: Annotated[int | None, typer.Option(min=1, help="show the top N")] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="sort by another column, as the table or the files name it")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="output format")] = Format.table,
) -> None:
    """Show the ranking of a run; also of a run in progress."""
    from nex_merge.runs import files
    from nex_merge.runs.leaderboard import read_rows, sort_rows
    from nex_merge.runs.results import read_reliability
    from nex_merge.runs.run import RunFolder
    from nex_merge.runs.tables import column_named, count_trials, print_table, render

    opened = RunFolder(run)
    rows = every = read_rows(opened)
    if lost := opened.lost():
        echo(f"{opened.path / files.TRIALS}: lacks results that were there: {', '.join(lost)}", err=True)
    column = None if sort is None else column_named(sort)
    if column is not None:
        rows = sort_rows(rows, column)
    rows = rows[:top]
    reliability = read_reliability(run)
    if form is Format.table:
        title = f"{run}: {count_trials(every, len(rows))} under calibration {opened.scoring().calibration}"
        title = f"{title}, by {sort or 'rank'}"
        print_table(rows, title, opened.objective, reliability, every, column, run)
        echo(err=True)
        say_next_steps(every, opened.objective, reliability, run)
    else:
        echo(render(rows, form.value, opened.objective, reliability, every))


@app.command(rich_help_panel=SEARCH, epilog=example("watch results/qwen3_ties"))
def watch(
    run: Run,
    once: Annotated[bool, typer.Option("--once", help="print the current state and exit")] = False,
    top: Annotated[int, typer.Option(min=1, help="show the top N, or as many as fit the terminal")] = 10,
) -> None:
    """Follow a running search: every worker, tokens per second, time left, curve, leaderboard. Read-only."""
    from nex_merge.runs.run import RunFolder
    from nex_merge.runs.watch import watch

    opened = RunFolder(run)
    view = watch(opened, once, top)
    if view.live is not None:
        say_next("Follow it", "watch", run)
    elif len(view.rows) < view.total:
        say_next("Go on with the search", "search", run / "config.yaml")
    else:
        say_next("What to make of it", "leaderboard", run)


@app.command(rich_help_panel=LOOK, epilog=example("rescore results/qwen3_ties --calibration crossfit"))
def rescore(
    run: Run,
    calibration: Annotated[str | None, typer.Option(help="self, crossfit, parents or pool; default: the run's")] = None,
    capture: Annotated[
        list[str] | None,
        typer.Option(metavar="TRIAL", help="first capture the activations of a trial, or of all; may be repeated"),
    ] = None,
    rho: Annotated[float | None, typer.Option(help="probability of staying in a phase; default: the run's")] = None,
    min_run: Annotated[int | None, typer.Option(help="shortest phase, in rows; default: the run's")] = None,
) -> None:
    """Rescore a finished run under another calibration, without loading a model, and replace its leaderboard.

    Earlier leaderboards are kept in leaderboards/; rescoring with the run's original calibration restores the first.
    Trials that the search did not capture (activations.capture) are, with --capture, merged again and captured.
    """
    from nex_merge.runs import files
    from nex_merge.runs.custody import locked
    from nex_merge.runs.rescore import rescore_run
    from nex_merge.runs.results import read_reliability
    from nex_merge.runs.run import RunFolder
    from nex_merge.runs.tables import count_trials, print_table

    opened = RunFolder(run)
    configured = opened.config.nex
    calibration = calibration or configured.calibration
    settings = {"calibration": calibration, "rho": configured.rho if rho is None else rho}
    settings["min_run"] = configured.min_run if min_run is None else min_run
    nex = configuration.parse(configuration.NexConfig, settings, "rescore")
    with locked(run):  # a running search writes the same files
        if lost := opened.lost():
            raise InputError(f"{opened.folder(lost[0]) / files.RESULT}: was there and is gone. {files.AGAIN}")
        if capture:
            from nex_merge.runs.recapture import recapture, uncaptured

            named = None if capture == ["all"] else [opened.find(trial).trial for trial in capture]
            for stage in (opened, opened.final):
                if stage is not None:
                    scored = [result.trial for result in stage.results() if result.state in files.SCORED]
                    # Not every trial is in the final.
                    wanted = named if named and stage is opened else [t for t in scored if named is None or t in named]
                    recapture(stage, uncaptured(stage, wanted), echo)
        rows = rescore_run(opened, nex)
        opened.keep_missing_hashes()
    title = f"{run}: {count_trials(rows)} under calibration {calibration}"
    reliability = read_reliability(run)
    print_table(rows, title, opened.objective, reliability, rows, run=run)
    echo(err=True)
    say_next_steps(rows, opened.objective, reliability, run)
