"""`nex-merge clean`: room on the disk."""

import sys
from typing import Annotated

import typer

from nex_merge import interrupts
from nex_merge.cli.app import USE, Run, app, example, say, say_next
from nex_merge.errors import InputError
from nex_merge.setup import config as configuration
from nex_merge.terminal import echo


@app.command(rich_help_panel=USE, epilog=example("clean results/qwen3_ties --keep top:1"))
def clean(
    run: Run,
    keep: Annotated[
        str, typer.Option(metavar="top:K|none", help="merges at the head of the leaderboard that keep activations")
    ] = "none",
    yes: Annotated[bool, typer.Option("--yes", help="remove without a question")] = False,
) -> None:
    """Remove from a finished or stopped run what its ranking does not need, after saying what, and what it costs.

    Removed are the activations of merges, which are most of a run folder, and what interrupted trials and killed
    commands left. Responses, results, credit, leaderboards and all of base and parents stay. Earlier runs that --fresh
    renamed are named and left. Without a terminal and without --yes, nothing is removed.
    """
    try:
        most = configuration.kept_merges(keep)
    except ValueError:
        most = None
    if most is None:
        raise InputError(f"--keep: expected none or top:K with a number of merges from 1, such as top:3, got {keep!r}")
    from rich.filesize import decimal

    from nex_merge.runs.clean import earlier_runs, parts_of
    from nex_merge.runs.custody import locked
    from nex_merge.runs.run import RunFolder

    opened = RunFolder(run)
    with locked(run):
        parts = parts_of(opened, most, say)
        for part in parts:
            echo(f"{decimal(part.size):>9}  {part.what}: {part.cost}")
        for path, size in earlier_runs(run):
            echo(f"{decimal(size):>9}  stay in {path}: an earlier run, which --fresh renamed; clean it, or remove it")
        if not parts:
            say(f"{run}: there is nothing to remove")
        elif yes or (_is_terminal() and _is_agreed()):
            for part in parts:
                part.remove()
            say(f"{run}: removed {decimal(sum(part.size for part in parts))}")
        else:
            say(f"{run}: nothing was removed")
            if not _is_terminal():
                say_next("Remove it", "clean", run, *(() if keep == "none" else ("--keep", keep)), "--yes")


def _is_agreed() -> bool:
    try:
        return typer.confirm("Remove this?", err=True)
    except typer.Abort:  # Ctrl-D, or Ctrl-C
        interrupts.check()
        say("")
        return False


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()
