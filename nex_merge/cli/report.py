"""`nex-merge report`: a whole run on one page."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from nex_merge.cli.app import LOOK, Run, app, example, path_value, say_next
from nex_merge.errors import InputError
from nex_merge.setup.paths import check_writable_file


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
    from nex_merge.runs.run import Run as RunFolder

    opened = RunFolder(run)
    file = run / "report.html" if out is None else out
    if file.suffix not in (".html", ".htm") or file.is_dir():
        raise InputError(f"--out: expected a file name that ends in .html, got {file}")
    check_writable_file(file, "--out")
    # Heavy imports come after everything that can be refused without them.
    from nex_merge.report import write_report

    size = write_report(opened, file, datetime.now().astimezone(), lambda text: typer.echo(text, err=True))
    typer.echo(f"{file}: {size / 1e6:.1f} MB")
    if not show:
        say_next("Open it", "report", run, *(() if out is None else ("--out", out)), "--open")
    else:
        import webbrowser

        if not webbrowser.open(file.resolve().as_uri()):
            typer.echo(f"--open: no browser found; open {file.resolve()} yourself", err=True)
