"""The typer application, and arguments shared by commands."""

import importlib.metadata
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nex_merge.setup.paths import expand_for

app = typer.Typer(
    help="Search merge recipes without labels: variants are ranked by how they recruit and reuse neurons (NEX).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"
    md = "md"


class ShortFormat(StrEnum):
    table = "table"
    json = "json"


def path_value(parameter: typer.CallbackParam, value: Path | str | None) -> Path | str | None:
    """A callback for options that take a path: `~` and variables are replaced, as in configurations."""
    if value is None:
        return None
    name = max(parameter.opts, key=len)
    expanded = expand_for(str(value), name if name.startswith("-") else parameter.metavar or name.upper())
    return Path(expanded) if isinstance(value, Path) else expanded


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nex-merge {importlib.metadata.version('nex-merge')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="print the version and exit", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


Run = Annotated[Path, typer.Argument(help="a run folder", show_default=False, callback=path_value)]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override one setting; repeatable")]
