"""What a run is handed on as: a page with all of it (`nex-merge report`), and a checkpoint (`nex-merge export`)."""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nex_merge.cli.app import LOOK, USE, Run, app, example, path_value, say_next
from nex_merge.setup.paths import check_new_folder
from nex_merge.terminal import echo


class Dtype(StrEnum):
    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


@app.command(rich_help_panel=LOOK, epilog=example("report results/qwen3_ties --open"))
def report(
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", callback=path_value, help="HTML file to write; default: report.html in the run"
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="open the page in the browser")] = False,
) -> None:
    """Write a run as one HTML page that needs no network: the pick, leaderboard, figures, responses, recipe."""
    from nex_merge.runs.files import check_output_file
    from nex_merge.runs.run import RunFolder

    opened = RunFolder(run)
    file = run / "report.html" if out is None else out
    check_output_file(file, "--out", ".html", ".htm")
    # Heavy imports come after everything that can be refused without them.
    from nex_merge.report import write_report

    size = write_report(opened, file, datetime.now().astimezone(), lambda text: echo(text, err=True))
    echo(f"{file}: {size / 1e6:.1f} MB")
    if not show:
        say_next("Open it", "report", run, *(() if out is None else ("--out", out)), "--open")
    else:
        import webbrowser

        if not webbrowser.open(file.resolve().as_uri()):
            echo(f"--open: no browser found; open {file.resolve()} yourself", err=True)


@app.command(rich_help_panel=USE, epilog=example("export results/qwen3_ties --by consensus --out best"))
def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="the folder to write", callback=path_value)],
    trial: Annotated[str | None, typer.Option(help="a trial's id; default: the recommended merge")] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="MEASURE",
            help="the best merge by this measure instead of the objective; of several objectives, one",
        ),
    ] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            help="what weights are stored in; default: as they were scored. In another, they are rounded from those"
        ),
    ] = None,
    max_shard_size: Annotated[
        str, typer.Option(metavar="SIZE", help="the most that a file of weights holds, such as 500MB")
    ] = "5GB",
    push: Annotated[
        str | None,
        typer.Option(
            metavar="REPO",
            help="upload the export to this repository on the Hugging Face hub, OWNER/NAME: a new one, which is "
            "private, or one with an earlier export",
        ),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="with --push: let everybody see it")] = False,
) -> None:
    """Write a variant as a checkpoint, checked against the tensors and answers that were scored."""
    check_new_folder(out, "--out")
    from nex_merge.runs.push import check_push, push_export

    check_push(push, public)
    from nex_merge.runs.export import export_trial
    from nex_merge.runs.files import read_accuracy, trial_label
    from nex_merge.runs.leaderboard import best_merge
    from nex_merge.runs.run import RunFolder

    opened = RunFolder(run)
    for line in export_trial(opened, trial, out, by, dtype and dtype.value, max_shard_size):
        echo(line)
    exported = opened.find(trial) if trial is not None else best_merge(opened, by)
    if push is not None:
        echo(push_export(out, push, public, exported.trial))
    if read_accuracy(run, exported.trial) is None:
        label = trial_label(exported.trial)
        say_next("With labels, its accuracy", "benchmark", run, "--data", "FILE", "--trials", label)
