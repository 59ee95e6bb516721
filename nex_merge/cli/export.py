"""`nex-merge export`: a variant as a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from nex_merge.cli.app import USE, Run, app, example, path_value, say_next
from nex_merge.setup.paths import check_writable_folder


@app.command(rich_help_panel=USE, epilog=example("export results/qwen3_ties --by consensus --out best"))
def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="the folder to write", callback=path_value)],
    trial: Annotated[str | None, typer.Option(help="a trial's id; default: the best merge")] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="MEASURE",
            help="the best merge by this measure instead of the objective; of several objectives, one",
        ),
    ] = None,
) -> None:
    """Write a variant as a checkpoint, checked against the tensors and answers that were scored."""
    check_writable_folder(out, "--out")
    from nex_merge.runs.export import export_trial
    from nex_merge.runs.files import read_accuracy, trial_label
    from nex_merge.runs.run import Run as RunFolder

    opened = RunFolder(run)
    for line in export_trial(opened, trial, out, by):
        typer.echo(line)
    exported = opened.find(trial) if trial is not None else opened.best(by)
    if read_accuracy(run, exported.trial) is None:
        label = trial_label(exported.trial)
        say_next("With labels, its accuracy", "benchmark", run, "--data", "FILE", "--trials", label)
