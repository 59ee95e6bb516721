"""`nex-merge compare`: two variants compared blind, without known answers, until it is settled which is better."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nex_merge.cli.app import MEASURE, Run, ShortFormat, app, example, path_value, say, say_next
from nex_merge.errors import InputError
from nex_merge.inert import json_text
from nex_merge.setup.paths import command, expand_for
from nex_merge.terminal import echo
from nex_merge.wording import counted, wrapped

if TYPE_CHECKING:
    from nex_merge.compare.pairs import Opened
    from nex_merge.runs.preferred import Tally

_TERMINAL = "terminal"  # the judge who is asked there, unless named


def _paths(values: list[Path] | None) -> list[Path] | None:
    return values and [Path(expand_for(str(value), "--read")) for value in values]


@app.command(rich_help_panel=MEASURE, epilog=example("compare results/qwen3_ties --page judge.html"))
def compare(
    run: Run,
    between: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="TRIAL TRIAL",
            help="any two finished trials: a merge's number, base, a parent's name; default: the recommended merge and "
            "the best of base and parents, or base where the odds against them are not settled",
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", callback=path_value, help="write a page that works offline and gives a file back"
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE.csv", callback=path_value, help="write a sheet for spreadsheets"),
    ] = None,
    read: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            callback=_paths,
            help="count what a judge said on a page or in a sheet; repeat it for several judges",
        ),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="NAME", help="who judges; default: a file's name, or terminal")
    ] = None,
    form: Annotated[ShortFormat, typer.Option("--format", help="output format")] = ShortFormat.table,
) -> None:
    """Compare two variants blind, on the prompts on which they differ, until it is settled which is better.

    Both answers stand side by side, unnamed and shuffled: left, right, both good or neither, a key each. After each
    look a sequential test says whether it is settled, with an error of 5 % whenever one stops. It needs no known
    answers, and also works for writing and chat. What is said is kept in compare.json, and the same command goes on
    from there.
    """
    if read and (page or sheet):
        raise InputError("compare: expected --read, or --page and --csv, got both")
    if judge is not None and not judge.strip():
        raise InputError("--judge: expected a name, got nothing")
    from nex_merge.runs.files import check_output_file

    if page is not None:
        check_output_file(page, "--page", ".html", ".htm")
    if sheet is not None:
        from nex_merge.compare.sheets import check_not_judged

        check_output_file(sheet, "--csv", ".csv")
        check_not_judged(sheet)
    from nex_merge.compare.pairs import begin, open_comparison
    from nex_merge.runs.run import RunFolder

    opened = begin(open_comparison(RunFolder(run), between))
    words = (run, *(("--between", *between) if between else ()))
    say(_about(opened))
    if page is not None or sheet is not None:
        _write(opened, page, sheet)
        say_next("Count what comes back", "compare", *words, "--read", "FILE")
        return
    found = _judged(opened, words, read, judge, form)
    _print(opened, found, form)
    if not found.state.is_over:
        say_next("Go on", "compare", *words)
    elif found.winner is not None:
        say_next("What it means for the ranking", "leaderboard", run)


def _about(opened: "Opened") -> str:
    """What is compared, and how long it takes."""
    from nex_merge.sequential import FEWEST, stand

    count = len(opened.comparison.order)
    fewest = stand((), count).at_least
    takes = f"at least {fewest} looks are needed, and at most {count}"
    takes = f"too few to settle anything, which takes {FEWEST}" if fewest is None else takes
    samples = "" if opened.samples == 1 else f" Of {opened.samples} samples of a prompt, the first is compared."
    return f"{opened.about}, which are asked in random order: {takes}.{samples}"


def _write(opened: "Opened", page: Path | None, sheet: Path | None) -> None:
    if page is not None:
        from nex_merge.compare.page import write_page

        echo(f"{page}: {counted(write_page(opened, page), 'prompt')}; open it in a browser")
    if sheet is not None:
        from nex_merge.compare.sheets import write_sheet

        count = write_sheet(opened, sheet)
        echo(f"{sheet}: {counted(count, 'prompt')}; write left, right, both or neither under better, from the top")


def _judged(
    opened: "Opened", words: tuple[object, ...], read: list[Path] | None, judge: str | None, form: ShortFormat
) -> "Tally":
    """What counts after the files are read, or the judge at the terminal has been asked."""
    from nex_merge.compare.terminal import interview
    from nex_merge.runs.preferred import tally

    if read:
        from nex_merge.compare.sheets import read_sheets

        opened = opened.keep(*read_sheets(opened, read, judge))
        return tally(opened.run.path, opened.comparison)
    found = tally(opened.run.path, opened.comparison)
    if form is ShortFormat.table or _is_terminal():
        opened.check_enough()
    if _is_terminal():
        return interview(opened, judge or _TERMINAL)
    if form is ShortFormat.json or found.state.is_over:
        return found
    raise InputError(
        "compare: asking needs a terminal. A page or a sheet asks elsewhere: "
        f"{command('compare', *words, '--page', 'FILE.html')} or {command('compare', *words, '--csv', 'FILE.csv')}"
    )


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _print(opened: "Opened", found: "Tally", form: ShortFormat) -> None:
    from nex_merge.runs.preferred import tally_lines

    if form is ShortFormat.table:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for line in tally_lines(found) if found.valid else ("Nothing is judged yet.",):
            echo(line if width is None else wrapped(line, width))
        return
    state, comparison = found.state, found.comparison
    over = state.is_over
    same, pairs = found.agreement
    content = {
        "between": list(comparison.between), "by": comparison.match or "answers", "prompts": comparison.prompts,
        "differ": len(comparison.order), "looks": len(found.outcomes), "better": found.winner, "over": over,
        "at_most": state.at_most, "counts": dict(found.counts) if over else None, "judges": list(found.judges),
        "pairs": pairs, "same": same,
    }  # fmt: skip
    echo(json_text(content))
