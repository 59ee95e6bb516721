"""Commands of a search: run it, look at its ranking, export its best."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nex_merge.cli.app import Format, Run, Set, app
from nex_merge.setup import config as configuration


def _overrides(
    settings: list[str] | None, trials: int | None, family: str | None, out: Path | None, seed: int | None
) -> dict[str, Any]:
    result = configuration.override(settings or [])
    study = {key: value for key, value in (("trials", trials), ("seed", seed)) if value is not None}
    for key, value in (("study", study or None), ("family", family), ("output", str(out) if out else None)):
        if value is not None:
            result = configuration.merge_mappings(result, {key: value})
    return result


@app.command()
def search(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="a file like configs/qwen3_ties.yaml")],
    trials: Annotated[int | None, typer.Option(help="merges to try")] = None,
    family: Annotated[str | None, typer.Option(help="another model family")] = None,
    out: Annotated[Path | None, typer.Option(help="the run folder")] = None,
    seed: Annotated[int | None, typer.Option(help="of the sampler and of stochastic merges")] = None,
    settings: Set = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be done")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="start over, keeping an earlier run aside")] = False,
) -> None:
    """Run, or go on with, a search; print the leaderboard at the end."""
    from nex_merge.setup.resolve import make_plan

    overrides = _overrides(settings, trials, family, out, seed)
    if dry_run:
        _print_plan(config, overrides)
        return
    plan = make_plan(config, overrides)
    # Heavy imports come after everything that can be refused without them.
    from nex_merge.runs.files import read_reliability
    from nex_merge.runs.leaderboard import objective_of, print_table
    from nex_merge.study.progress import Watcher
    from nex_merge.study.search import run_search

    total = plan.config.study.trials + (len(plan.family.folders) if plan.config.study.baselines else 0)
    done = 0 if fresh else len(list((plan.run / "trials").glob("*/result.json")))
    objective = objective_of(plan.config.study.model_dump())
    with Watcher(plan.run, total, done, objective.name, objective.sign) as watcher:
        watcher.note(f"{plan.source}: family {plan.family.name}, run folder {plan.run}")
        rows = run_search(plan, fresh, watcher)
    title = f"{plan.run}: {len(rows)} trials under calibration {plan.config.nex.calibration}, best first"
    print_table(rows, title, read_reliability(plan.run), objective.name)
    typer.echo(f"\nExport the best merge: nex-merge export {plan.run} --out DIR", err=True)
    typer.echo(f"See it all on one page: nex-merge report {plan.run} --open", err=True)


@app.command()
def validate(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="a file like configs/qwen3_ties.yaml")],
    family: Annotated[str | None, typer.Option(help="another model family")] = None,
    settings: Set = None,
) -> None:
    """Preflight: everything that can be known before the first merge."""
    _print_plan(config, _overrides(settings, None, family, None, None))


def _print_plan(config: str, overrides: dict[str, Any]) -> None:
    from nex_merge.study.preflight import estimate
    from nex_merge.setup.resolve import make_plan

    for line in estimate(make_plan(config, overrides)):
        typer.echo(line)


@app.command()
def leaderboard(
    run: Run,
    top: Annotated[int | None, typer.Option(min=1, help="only the best so many")] = None,
    sort: Annotated[str | None, typer.Option(metavar="COLUMN", help="sort by another column")] = None,
    form: Annotated[Format, typer.Option("--format")] = Format.table,
) -> None:
    """The ranking of a run."""
    from nex_merge.runs.files import read_reliability, read_scoring, read_settings
    from nex_merge.runs.leaderboard import print_table, read_rows, render, sort_rows

    rows = read_rows(run)
    if sort is not None:
        rows = sort_rows(rows, sort)
    rows = rows[:top]
    if form is Format.table:
        settings = read_settings(run)
        # Rescoring changes whose weights the leaderboard's scores rest on.
        calibration = (read_scoring(run) or settings["nex"])["calibration"]
        title = f"{run}: {len(rows)} trials under calibration {calibration}, by {sort or 'rank'}"
        print_table(rows, title, read_reliability(run), settings["study"]["objective"])
    else:
        typer.echo(render(rows, form.value))


@app.command()
def watch(
    run: Run,
    once: Annotated[bool, typer.Option("--once", help="print what there is now, and end")] = False,
    top: Annotated[int, typer.Option(min=1, help="rows of the leaderboard; what fits the terminal unless given")] = 10,
) -> None:
    """Look on while a search runs: stage, tokens per second, time left, curve, leaderboard. It only reads."""
    from nex_merge.runs.watch import watch

    watch(run, once, top)


@app.command()
def rescore(
    run: Run,
    calibration: Annotated[str, typer.Option(help="self, crossfit, parents or pool")],
    rho: Annotated[float | None, typer.Option(help="probability of staying in a phase; the run's own")] = None,
    min_run: Annotated[int | None, typer.Option(help="shortest phase, in rows; the run's own")] = None,
) -> None:
    """Score a finished run under another calibration, without touching a model, and make that its leaderboard.

    Earlier ones are kept in leaderboards/; the same command with the run's own calibration goes back to it.
    """
    from nex_merge.runs.files import read_reliability, read_settings
    from nex_merge.runs.leaderboard import print_table
    from nex_merge.runs.rescore import write_scores

    own = configuration.parse(configuration.NexConfig, read_settings(run)["nex"], str(run))
    asked = {"calibration": calibration, "rho": own.rho if rho is None else rho}
    asked["min_run"] = own.min_run if min_run is None else min_run
    nex = configuration.parse(configuration.NexConfig, asked, "rescore")
    rows = write_scores(run, nex, own)
    title = f"{run}: {len(rows)} trials under calibration {calibration}"
    print_table(rows, title, read_reliability(run), read_settings(run)["study"]["objective"])


@app.command()
def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="the folder to write")],
    trial: Annotated[str | None, typer.Option(help="a trial's id; the best merge unless given")] = None,
) -> None:
    """Write the best, or any, variant as a checkpoint, and prove that it is the one that was scored."""
    from nex_merge.runs.export import export_trial

    for line in export_trial(run, trial, out):
        typer.echo(line)


@app.command()
def methods() -> None:
    """The merge methods that can be searched, with their parameters."""
    from nex_merge.cli.catalogue import list_methods

    list_methods()


@app.command()
def families() -> None:
    """The model families that configurations can name."""
    from nex_merge.cli.catalogue import list_families

    list_families()


@app.command()
def spaces() -> None:
    """The search spaces that configurations can name."""
    from nex_merge.cli.catalogue import list_spaces

    list_spaces()
