"""The command line. Composes the stages; heavy imports wait until a command needs them.

Results go to stdout, progress and logs to stderr. Exit codes: 0 done, 1 the run failed, 2 the input is at fault, 130
interrupted.
"""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from nex_merge import config as configuration
from nex_merge.errors import InputError, NexMergeError

app = typer.Typer(
    help="Search merge recipes without labels: variants are ranked by how their reasoning explores and reuses (NEX).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED = 130  # what typer makes of Ctrl-C


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"
    md = "md"


class ShortFormat(StrEnum):
    table = "table"
    json = "json"


Run = Annotated[Path, typer.Argument(help="a run folder", show_default=False)]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override one setting; repeatable")]


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
    from nex_merge.plan import make_plan

    overrides = _overrides(settings, trials, family, out, seed)
    if dry_run:
        _print_plan(config, overrides)
        return
    plan = make_plan(config, overrides)
    # Heavy imports come after everything that can be refused without them.
    from nex_merge.leaderboard import objective_of, print_table
    from nex_merge.progress import Watcher
    from nex_merge.search import run_search
    from nex_merge.trials import read_reliability

    total = plan.config.study.trials + (len(plan.family.folders) if plan.config.study.baselines else 0)
    done = 0 if fresh else len(list((plan.run / "trials").glob("*/result.json")))
    objective = objective_of(plan.config.study.model_dump())
    with Watcher(total, done, objective.name, objective.sign) as watcher:
        watcher.note(f"{plan.source}: family {plan.family.name}, run folder {plan.run}")
        rows = run_search(plan, fresh, watcher)
    print_table(rows, f"{plan.run}: {len(rows)} trials, best first", read_reliability(plan.run), objective.name)
    typer.echo(f"\nExport the best merge: nex-merge export {plan.run} --out DIR", err=True)


@app.command()
def validate(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="a file like configs/qwen3_ties.yaml")],
    settings: Set = None,
) -> None:
    """Preflight: everything that can be known before the first merge."""
    _print_plan(config, configuration.override(settings or []))


def _print_plan(config: str, overrides: dict[str, Any]) -> None:
    from nex_merge.estimate import estimate
    from nex_merge.plan import make_plan

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
    from nex_merge.leaderboard import print_table, read_rows, render, sort_rows
    from nex_merge.trials import read_reliability, read_settings

    rows = read_rows(run)
    if sort is not None:
        rows = sort_rows(rows, sort)
    rows = rows[:top]
    if form is Format.table:
        title = f"{run}: {len(rows)} trials" + ("" if sort is None else f", by {sort}")
        print_table(rows, title, read_reliability(run), read_settings(run)["study"]["objective"])
    else:
        typer.echo(render(rows, form.value))


@app.command()
def rescore(
    run: Run,
    calibration: Annotated[str, typer.Option(help="self, crossfit, parents or pool")],
    rho: Annotated[float | None, typer.Option(help="probability of staying in a phase; the run's own")] = None,
    min_run: Annotated[int | None, typer.Option(help="shortest phase, in rows; the run's own")] = None,
) -> None:
    """Score a finished run under another calibration, without touching a model; earlier leaderboards are kept."""
    from nex_merge.leaderboard import print_table
    from nex_merge.rescore import write_scores
    from nex_merge.trials import read_reliability, read_settings

    own = configuration.parse(configuration.NexConfig, read_settings(run)["nex"], str(run))
    asked = {"calibration": calibration, "rho": own.rho if rho is None else rho}
    asked["min_run"] = own.min_run if min_run is None else min_run
    nex = configuration.parse(configuration.NexConfig, asked, "rescore")
    rows = write_scores(run, nex, own)
    title = f"{run}: {len(rows)} trials under calibration {calibration}"
    print_table(rows, title, read_reliability(run), read_settings(run)["study"]["objective"])


@app.command()
def benchmark(
    run: Run,
    data: Annotated[Path, typer.Option(help="JSONL with prompt or messages, and answer")],
    match: Annotated[str, typer.Option(help="exact, number, choice or regex")] = "exact",
    top: Annotated[int | None, typer.Option(min=1, help="only the best so many")] = None,
    trials: Annotated[str | None, typer.Option(metavar="IDS", help="only these, for example base,3,7")] = None,
) -> None:
    """Accuracy of a run's variants on labelled prompts; it joins the leaderboard and never guides the search."""
    from nex_merge.benchmark import benchmark, choose_trials, load_items
    from nex_merge.leaderboard import print_table, read_rows, write_leaderboard

    items = load_items(data, match)
    chosen = choose_trials(run, top, [i.strip() for i in trials.split(",")] if trials else [], read_rows(run))
    benchmark(run, items, f"{data.name}, {match}", chosen, lambda text: typer.echo(text, err=True))
    rows = [row for row in write_leaderboard(run) if row["trial"] in chosen]
    print_table(rows, f"{run}: accuracy on {len(items)} labelled prompts")


@app.command()
def correlate(
    run: Run,
    accuracy: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="CSV or JSON with trial or recipe, and accuracy; 'builtin' measures qwen3-tiny's held-out problems; "
            "left out: what is known already",
        ),
    ] = None,
    problems: Annotated[int, typer.Option(min=1, help="builtin: held-out problems of each kind")] = 64,
    by: Annotated[str | None, typer.Option(metavar="COLUMN", help="split by a column, for example method")] = None,
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="write scatter plots as PNG")] = None,
    form: Annotated[ShortFormat, typer.Option("--format")] = ShortFormat.table,
) -> None:
    """Does the score agree with accuracy? Rank correlations with intervals, regret, and the same for simple rivals."""
    from nex_merge.correlate import FEWEST, agreement, print_agreement, split
    from nex_merge.leaderboard import columns_of, read_rows, write_leaderboard

    if accuracy == "builtin":
        from nex_merge.benchmark import FAMILY, benchmark, builtin_items, choose_trials
        from nex_merge.families import read_family
        from nex_merge.trials import read_settings

        family = read_family(read_settings(run)["family"])[1]
        if family != FAMILY:
            raise InputError(f"--accuracy builtin: only family {FAMILY} brings problems, this run's is {family!r}")
        chosen = choose_trials(run, None, [], read_rows(run))
        benchmark(run, builtin_items(problems), "builtin", chosen, lambda text: typer.echo(text, err=True))
    elif accuracy is not None:
        from nex_merge.benchmark import attach_accuracy

        attach_accuracy(run, Path(accuracy))
    rows = write_leaderboard(run)
    if by is not None and by not in columns_of(rows):
        raise InputError(f"--by: no column {by!r}.{configuration.nearest(by, columns_of(rows))}")
    found = agreement(rows)
    parts = {} if by is None else {f"{by} {value}": part for value, part in split(rows, by).items()}
    groups = {}
    for name, part in parts.items():
        if sum(row["accuracy"] is not None and row["rank"] is not None for row in part) < FEWEST:
            typer.echo(f"{name}: fewer than {FEWEST} variants with accuracy, left out", err=True)
        else:
            groups[name] = agreement(part)
    if plots is not None:
        from nex_merge.plots import write_scatters

        for file in write_scatters(rows, [name for name in found["scores"] if name != "rank"], plots):
            typer.echo(f"wrote {file}", err=True)
    if form is ShortFormat.json:
        import json

        typer.echo(json.dumps({**found, **({"by": groups} if by else {})}, indent=1))
        return
    from nex_merge.plots import scatter_text

    print_agreement(found)
    for name, group in groups.items():
        typer.echo()
        print_agreement(group, f"{name}: ")
    typer.echo("Intervals: 95 % bootstrap over variants. Regret k: best accuracy minus the best among a score's top k.")
    typer.echo("A minus before a score: less is taken to be better. rank: the leaderboard, collapsed variants last.\n")
    typer.echo(scatter_text(rows, "nex"))


@app.command()
def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="the folder to write")],
    trial: Annotated[str | None, typer.Option(help="a trial's id; the best merge unless given")] = None,
) -> None:
    """Write the best, or any, variant as a checkpoint, and prove that it is the one that was scored."""
    from nex_merge.export import export_trial

    for line in export_trial(run, trial, out):
        typer.echo(line)


@app.command()
def score(
    cache: Annotated[Path | None, typer.Option(help="a sparse activation cache")] = None,
    model: Annotated[str | None, typer.Option(help="a checkpoint folder or hub id, with --prompts")] = None,
    prompts: Annotated[str | None, typer.Option(help="JSONL, text, CSV or Parquet")] = None,
    settings: Set = None,
    rho: Annotated[float, typer.Option(help="probability of staying in a phase")] = 0.95,
    min_run: Annotated[int, typer.Option(min=1, help="shortest phase, in rows")] = 2,
    weights: Annotated[
        Path | None, typer.Option(help="neuron weights (.npz with keys, weights) to score under")
    ] = None,
    weights_out: Annotated[Path | None, typer.Option(help="save the neuron weights used")] = None,
    form: Annotated[ShortFormat, typer.Option("--format")] = ShortFormat.table,
) -> None:
    """NEX of a cache, or of a model's answers to prompts."""
    from nex_merge.scoring import print_score, save_weights, score_cache, score_model

    if not 0 < rho < 1:
        raise InputError(f"--rho: found {rho}; a probability between 0 and 1, ends left out, would do")
    if (cache is None) == (model is None) or (model is None) != (prompts is None):
        raise InputError("score: give either --cache DIR, or --model M with --prompts F")
    if cache is not None:
        if settings:
            raise InputError("score: --set belongs to --model; a cache is scored as it was captured")
        found, used = score_cache(cache, rho, min_run, weights)
    else:
        assert model is not None and prompts is not None
        found, used = score_model(model, prompts, configuration.override(settings or []), rho, min_run, weights)
    if weights_out is not None:
        save_weights(weights_out, used)
    print_score(found, form.value)


@app.command()
def methods() -> None:
    """The merge methods that can be searched, with their parameters."""
    from nex_merge.listing import list_methods

    list_methods()


@app.command()
def families() -> None:
    """The model families that configurations can name."""
    from nex_merge.listing import list_families

    list_families()


@app.command()
def spaces() -> None:
    """The search spaces that configurations can name."""
    from nex_merge.listing import list_spaces

    list_spaces()


def main() -> None:
    """Entry point: expected failures become one message and an exit code, never a traceback."""
    # The libraries' progress bars and notices would drown ours; a user's own setting stays.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        code = app(standalone_mode=False)
    except NexMergeError as error:
        typer.echo(f"nex-merge: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        typer.echo(f"nex-merge: {error}", err=True)
        sys.exit(1)
    except TyperException as error:
        error.show()  # pyright: ignore[reportAttributeAccessIssue]
        sys.exit(2)
    if code == INTERRUPTED:
        typer.echo("nex-merge: interrupted; what is done is kept, and the same command goes on from there", err=True)
    sys.exit(code or 0)
