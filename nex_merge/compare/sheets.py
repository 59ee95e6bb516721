"""Comparisons as sheets for several judges: CSV with both answers to each prompt, and what comes back of them.

The page's file has the same columns but the texts, and is read by the same function. Neither says whose the answers
are: only the run's folder does.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nex_merge.compare.pairs import BOTH, LEFT, NEITHER, RIGHT, Opened
from nex_merge.errors import InputError
from nex_merge.inert import csv_cell
from nex_merge.runs import files
from nex_merge.runs.comparisons import Comparison, Judgement
from nex_merge.setup import textfiles
from nex_merge.setup.paths import check_readable
from nex_merge.wording import counted

COLUMNS = ("comparison", "index", "better", "prompt", "left", "right")
# What judges write under `better`; the numbers are the keys of page and terminal.
_SAID = {
    "left": LEFT, "1": LEFT, "right": RIGHT, "2": RIGHT,
    "both": BOTH, "both good": BOTH, "3": BOTH, "neither": NEITHER, "4": NEITHER,
}  # fmt: skip
_SEPARATORS = (",", ";", "\t")


def check_not_judged(file: Path) -> None:
    """Raise InputError if a file that is there is anything but a sheet in which nothing is judged yet."""
    if not file.exists():
        return
    try:
        rows = list(textfiles.read_csv(file, "better", _separator(file)))
    except InputError:
        rows = None
    if rows is None or any(isinstance(row, InputError) or row.get("better", "?").strip() for _, row in rows):
        raise InputError(
            f"--csv: expected a new file, or a sheet in which nothing is judged yet, got {file}; choose another name"
        )


def write_sheet(opened: Opened, file: Path) -> int:
    """Write a CSV file with a row for each prompt, in the order drawn. Returns the number of prompts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    questions = opened.questions()
    for one in questions:
        cells = (opened.comparison.id, one.prompt, "", one.text, one.left, one.right)
        writer.writerow([csv_cell(cell) for cell in cells])
    # The mark lets spreadsheets take it for UTF-8.
    files.write_atomically(file, "\ufeff" + text.getvalue())
    return len(questions)


def read_sheets(opened: Opened, paths: Sequence[Path], judge: str | None) -> list[Judgement]:
    """What judges said in files of page or sheet; rows without a word are left out.

    A judge is who the row names (`judge`), else `judge`, else the file by its name. Raises InputError, naming the rows,
    for those of another comparison, prompts that it doesn't have, other words than these, and two that contradict each
    other.
    """
    found: dict[tuple[int, str], tuple[str, str]] = {}  # by prompt and judge: place, word
    for path in paths:
        check_readable(path, "--read", "a CSV file that page or sheet gave")
        rows = textfiles.read_csv(path, "better", _separator(path))
        name = judge or path.name.removesuffix(".gz").removesuffix(".csv")

        def read(where: str, row: Mapping[str, str], name: str = name) -> None:
            prompt, said = _prompt(row, where, opened.comparison), _said(row, where)
            by = (row.get("judge") or "").strip() or name
            if said is None:
                return
            earlier = found.setdefault((prompt, by), (where, said))
            if earlier[1] != said:
                raise InputError(
                    f"{where}: {by!r} says {said} of prompt {prompt} here and {earlier[1]} in {earlier[0]}. If these "
                    "are two judges, name them in a column judge"
                )

        textfiles.collect(rows, read)
    if not found:
        raise InputError(
            f"--read: {', '.join(map(str, paths))}: nothing is judged there: expected left, right, both or neither in "
            "the column better of at least one row"
        )
    return [opened.judgement(prompt, by, said) for (prompt, by), (_, said) in found.items()]


def _separator(path: Path) -> str:
    """What stands between the columns that we named: spreadsheets write semicolons in many countries."""
    first = next((line for _, line in textfiles.read_lines(path)), "")
    return next((mark for mark in _SEPARATORS if "better" in [part.strip(' "') for part in first.split(mark)]), ",")


def _said(row: Mapping[str, str], where: str) -> str | None:
    word = " ".join(row["better"].lower().split())
    if word and word not in _SAID:
        raise InputError(f"{where}: better: expected left, right, both or neither, or nothing, got {row['better']!r}")
    return _SAID.get(word)


def _prompt(row: Mapping[str, Any], where: str, comparison: Comparison) -> int:
    """The prompt that a row is about, of this comparison."""
    for name in ("comparison", "index", "better"):
        if name not in row:
            raise InputError(f"{where}: expected the column {name!r}, as page and sheet have it")
    if row["comparison"].strip() != comparison.id:
        raise InputError(
            f"{where}: is of the comparison {row['comparison']!r}, not {comparison.id}: of another run, of two other "
            "trials (--between names them), or the answers have changed since"
        )
    text = row["index"].strip()
    if not (text.isdecimal() and len(text) < 20 and int(text) in comparison.answers):
        raise InputError(
            f"{where}: index: expected one of the {counted(len(comparison.order), 'prompt')} of the comparison, got "
            f"{row['index']!r}"
        )
    return int(text)
