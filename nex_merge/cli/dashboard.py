"""`nex-merge dashboard`: a run in Optuna's dashboard."""

from pathlib import Path
from typing import Annotated

import typer

from nex_merge.cli.app import LOOK, Run, app, example, path_value, say
from nex_merge.setup.paths import command
from nex_merge.terminal import echo


@app.command(rich_help_panel=LOOK, epilog=example("dashboard results/qwen3_ties"))
def dashboard(
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            callback=path_value,
            help="write the study, as it is now, to an SQLite file for a dashboard elsewhere, and show nothing",
        ),
    ] = None,
) -> None:
    """Show a run in Optuna's dashboard, on this machine alone, with its present values; also of a run in progress.

    Needs nex-merge[dashboard], except with --out. Ctrl-C ends it. The run is only read.
    """
    from nex_merge.runs.files import check_output_file
    from nex_merge.runs.run import RunFolder

    opened = RunFolder(run)
    if out is not None:
        check_output_file(out, "--out")
    # Heavy imports come after what can be refused without them.
    from nex_merge.study.dashboard import check_dashboard, serve, write_study

    if out is not None:
        write_study(opened, out)
        echo(f"{out}: open it with optuna-dashboard sqlite:///{out.absolute()}")
        return
    check_dashboard(command("dashboard", run, "--out", "FILE"))
    serve(opened, lambda address: echo(f"{address} (Ctrl-C ends it)"), say)
