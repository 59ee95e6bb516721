"""Commands that need labels: accuracy, and whether measures agree with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nex_merge.cli.app import MEASURE, Run, ShortFormat, app, example, path_value, say_next
from nex_merge.errors import InputError
from nex_merge.inert import json_text
from nex_merge.setup import config as configuration
from nex_merge.setup.paths import check_writable_folder
from nex_merge.terminal import echo
from nex_merge.wording import counted

if TYPE_CHECKING:
    from nex_merge.labels.benchmark import Grader


@app.command(rich_help_panel=MEASURE, epilog=example("benchmark results/qwen3_ties --data problems.jsonl --top 3"))
def benchmark(
    run: Run,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=path_value, help="prompts with their answers: JSONL, JSON, CSV or Parquet"
        ),
    ] = None,
    match: Annotated[
        str | None,
        typer.Option(show_default="text", help="how to read answers: number, choice, text or regex:PATTERN"),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="instead of --data: tasks of lm-evaluation-harness, such as gsm8k,arc_challenge"
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="of --tasks: the first N problems of each")] = None,
    include_path: Annotated[
        Path | None,
        typer.Option(metavar="DIR", callback=path_value, help="of --tasks: a folder with tasks of your own, as YAML"),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="measure the top N")] = None,
    trials: Annotated[
        str | None, typer.Option(metavar="IDS", help="measure these trials, for example base,3,7")
    ] = None,
) -> None:
    """Measure the accuracy of a run's variants on labelled prompts; the search never uses it."""
    if (data is None) == (tasks is None):
        raise InputError(f"benchmark: expected either --data or --tasks, got {'neither' if data is None else 'both'}")
    of_tasks = {"--limit": limit, "--include-path": include_path}
    for option, value in of_tasks.items() if tasks is None else {"--match": match}.items():
        if value is not None:
            raise InputError(f"{option}: expected only with {'--tasks' if tasks is None else '--data'}")
    from nex_merge.labels.benchmark import benchmark, choose_trials
    from nex_merge.labels.correlate import FEWEST
    from nex_merge.runs.leaderboard import read_rows, write_leaderboard
    from nex_merge.runs.run import RunFolder
    from nex_merge.runs.tables import print_table

    opened = RunFolder(run)
    ids = [] if trials is None else [id.strip() for id in trials.split(",")]
    chosen = choose_trials(opened, top, ids, read_rows(opened))
    if data is not None:
        grader, what, again = _item_grader(data, match or "text")
    else:
        grader, what, again = _task_grader(str(tasks), include_path, limit)
    benchmark(opened, grader, chosen, lambda text: echo(text, err=True))
    every = write_leaderboard(opened)
    rows = [row for row in every if row.trial in chosen]
    print_table(rows, f"{run}: accuracy on {what}", opened.objective, sorted_by="accuracy")
    if sum(row.accuracy is not None and row.rank is not None for row in every) >= FEWEST:
        say_next("Whether the measures agree with it", "correlate", run)
    else:
        say_next("To compare it with the measures, measure all", "benchmark", run, *again)


def _item_grader(data: Path, match: str) -> "tuple[Grader, str, Sequence[object]]":
    """What grades on a file, what that is in words, and the options that ask for the same."""
    from nex_merge.labels.item_grader import ItemGrader
    from nex_merge.labels.items import load_items, unlike

    items = load_items(data, match)
    for line in unlike([item.answer for item in items], match):
        echo(f"{data}: {line}", err=True)
    what = counted(len(items), "labelled prompt")
    return ItemGrader(items, f"{data.name}, {match}"), what, ("--data", data, "--match", match)


def _task_grader(tasks: str, include_path: Path | None, limit: int | None) -> "tuple[Grader, str, Sequence[object]]":
    """As `_item_grader`, on tasks of lm-evaluation-harness."""
    from nex_merge.labels.lm_eval_grader import TaskGrader

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    grader = TaskGrader(names, include_path, limit, lambda text: echo(text, err=True))
    given = {"--tasks": ",".join(names), "--include-path": include_path, "--limit": limit}
    again = [word for option, value in given.items() if value is not None for word in (option, value)]
    return grader, ", ".join(names) + ("" if limit is None else f", the first {limit} problems of each"), again


@app.command(rich_help_panel=MEASURE, epilog=example("correlate results/qwen3_ties --accuracy builtin"))
def correlate(
    run: Run,
    accuracy: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            callback=path_value,
            help="CSV or JSON with trial or recipe, accuracy, and n (problems behind it) if known; or results of "
            "lm-eval on exports, a file or a folder of them; 'builtin' measures qwen3-tiny's held-out problems; "
            "default: the accuracy measured so far",
        ),
    ] = None,
    mapped: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="TRIAL=FILE", help="instead of --accuracy: results of lm-eval on this trial; repeatable"
        ),
    ] = None,
    problems: Annotated[
        int | None, typer.Option(min=1, help="builtin: held-out problems of each kind; default: 64")
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="COLUMN", help="split by a column, for example method")] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", callback=path_value, help="write scatter plots as PNG")
    ] = None,
    form: Annotated[ShortFormat, typer.Option("--format")] = ShortFormat.table,
) -> None:
    """Check whether measures agree with accuracy: rank correlations, noise ceiling, regret, trivial baselines."""
    from nex_merge.labels.correlate import FEWEST, agreement_with_accuracy, split
    from nex_merge.labels.labelled_run import labelled_run, on_task
    from nex_merge.runs.leaderboard import read_rows, write_leaderboard
    from nex_merge.runs.rows import columns_of, tasks_of
    from nex_merge.runs.run import RunFolder

    if accuracy is not None and mapped:
        raise InputError("correlate: expected either --accuracy or --map, got both")
    if problems is not None and accuracy != "builtin":
        raise InputError("--problems: expected only with --accuracy builtin")
    if plots is not None:
        check_writable_folder(plots, "--plots")
    opened = RunFolder(run)
    if mapped:
        from nex_merge.labels.lm_eval_files import attach_mapped

        attach_mapped(opened, mapped)
    elif accuracy == "builtin":
        from nex_merge.labels.benchmark import benchmark, choose_trials
        from nex_merge.labels.item_grader import ItemGrader
        from nex_merge.labels.items import builtin_items

        items = builtin_items(opened.family_name, problems or 64, "--accuracy builtin")
        chosen = choose_trials(opened, None, [], read_rows(opened))
        benchmark(opened, ItemGrader(items, "builtin"), chosen, lambda text: echo(text, err=True))
    elif accuracy is not None:
        from nex_merge.labels.accuracy_files import attach_accuracy
        from nex_merge.labels.lm_eval_files import attach_results, results_in

        if found := results_in(Path(accuracy)):
            attach_results(opened, found)
        else:
            attach_accuracy(opened, Path(accuracy))
    write_leaderboard(opened)
    rows = read_rows(opened, final=False)  # of all variants, on the same prompts
    if opened.final is not None:
        echo("Values of the search, where all variants answered the same prompts, not of the final.", err=True)
    if by is not None and by not in columns_of(rows):
        raise InputError(f"--by: unknown column {by!r}.{configuration.nearest(by, columns_of(rows))}")
    labelled = labelled_run(opened, rows)
    overall = agreement_with_accuracy(rows, labelled)
    parts = {} if by is None else {_heading(by, value): part for value, part in split(rows, by).items()}
    groups = {}
    for name, part in parts.items():
        if sum(row.accuracy is not None and row.rank is not None for row in part) < FEWEST:
            echo(f"{name}: fewer than {FEWEST} variants with accuracy, left out", err=True)
        else:
            groups[name] = agreement_with_accuracy(part, labelled)
    by_task = {}
    for task in tasks_of(rows):
        try:
            by_task[task] = agreement_with_accuracy(*on_task(labelled, rows, task))
        except InputError as error:
            echo(f"{task}: {error}; left out", err=True)
    if plots is not None:
        from nex_merge.labels.plots import write_scatters

        for file in write_scatters(rows, [name for name in overall["scores"] if name != "rank"], plots):
            echo(f"wrote {file}", err=True)
    if form is ShortFormat.json:
        echo(json_text({**overall, **({"by": groups} if by else {}), **({"tasks": by_task} if tasks_of(rows) else {})}))
        return
    from nex_merge.labels.agreement_table import print_agreement, print_legend, print_tasks
    from nex_merge.labels.plots import scatter_text
    from nex_merge.runs.files import trial_label

    print_agreement(overall)
    if by_task:
        print_tasks(by_task, next(str(row.accuracy_source) for row in rows if row.accuracy is not None))
    for name, group in groups.items():
        echo()
        print_agreement(group, f"{name}: ")
    echo()
    print_legend(overall)
    echo()
    echo(scatter_text(rows, opened.objective.name))
    best = trial_label(overall["best_trial"])
    if best.isdecimal():
        say_next(f"The most accurate, trial {best}, as a checkpoint", "export", run, "--trial", best, "--out", "DIR")
    else:
        echo(f"No merge is more accurate than {best}.", err=True)


def _heading(by: str, value: str) -> str:
    """What a part of the variants is headed, by a column and its value."""
    from nex_merge.runs.files import trial_label

    return f"{by} {trial_label(value) if by == 'trial' else value}"
