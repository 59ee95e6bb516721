"""The typer application, and arguments shared by commands."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

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


Run = Annotated[Path, typer.Argument(help="a run folder", show_default=False)]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override one setting; repeatable")]
