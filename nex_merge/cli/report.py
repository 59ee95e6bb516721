"""The command that tells of a whole run at once."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from nex_merge.cli.app import Run, app
from nex_merge.errors import InputError


@app.command()
def report(
    run: Run,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="the page to write; report.html in the run folder")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
) -> None:
    """A run as one HTML page that needs no network: how sure the pick is, leaderboard, figures, phases, recipe."""
    from nex_merge.runs.files import read_settings

    read_settings(run)  # before anything heavy
    file = run / "report.html" if out is None else out
    if file.suffix not in (".html", ".htm") or file.is_dir():
        raise InputError(f"--out: found {file}; the name of a file that ends in .html would do")
    from nex_merge.report import write_report

    size = write_report(run, file, datetime.now().astimezone(), lambda text: typer.echo(text, err=True))
    typer.echo(f"{file}: {size / 1e6:.1f} MB")
    if show:
        import webbrowser

        if not webbrowser.open(file.resolve().as_uri()):
            typer.echo(f"--open: found no browser; {file.resolve()} is there to be opened", err=True)
