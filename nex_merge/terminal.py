"""What commands print: lines, and consoles of rich as wide as the terminal. All text is shown as `inert` has it.

And whether it is a notebook that shows what we say.
"""

import os
import shutil
import sys
from collections.abc import Collection
from types import ModuleType
from typing import TYPE_CHECKING, Any, TextIO

from nex_merge.inert import visible
from nex_merge.wording import fitted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def echo(text: str = "", err: bool = False, nl: bool = True) -> None:
    """Write a line to stdout, or to stderr, as `visible` has it; a terminal's stderr is wrapped at blanks."""
    import typer

    text = visible(text)
    if err and nl and sys.stderr is not None and sys.stderr.isatty():
        text = fitted(text, shutil.get_terminal_size().columns)
    typer.echo(text, err=err, nl=nl)


def console(
    width: int | None = None, height: int | None = None, err: bool = False, file: TextIO | None = None
) -> "Console":
    """A console of rich on stdout, stderr or a file: no text is markup, and none but rich's own acts on a terminal."""
    from rich.console import Console
    from rich.segment import Segment

    class Inert(Console):
        def render(self, renderable: Any, options: Any = None) -> Any:
            for segment in super().render(renderable, options):
                shown = segment.control or visible(segment.text) == segment.text
                yield segment if shown else Segment(visible(segment.text), segment.style)

    return Inert(file=file, stderr=err, width=width, height=height, markup=False, emoji=False, highlight=False)


def console_of(width: int = 120) -> "Console":
    """A console on stdout: as wide as COLUMNS says, else as the terminal, else `width` columns."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return console(int(given), 25)  # without a height, rich takes a dumb terminal for 80 wide
    found = console()
    return found if found.is_terminal else console(width)


def table(*columns: str, left: Collection[str] = (), no_wrap: bool = True) -> "Table":
    """A table of rich without lines, whose columns are right-aligned, except those in `left`."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="left" if column in left else "right", no_wrap=no_wrap)
    return made


def kernel() -> ModuleType | None:
    """IPython, if this process is a kernel, which shows HTML. It has imported IPython then, which we need not."""
    found = sys.modules.get("IPython")
    shell = None if found is None else found.get_ipython()
    return found if getattr(shell, "kernel", None) is not None else None
