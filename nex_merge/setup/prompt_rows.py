"""Files that hold prompts -> their rows. Knows JSONL, JSON, text, CSV and Parquet, and which columns are read."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from nex_merge.errors import InputError
from nex_merge.setup import textfiles
from nex_merge.setup.explain import nearest
from nex_merge.setup.jsontext import parse_json
from nex_merge.setup.options import OPTIONS
from nex_merge.setup.row_formats import LABELS, Format, fitting
from nex_merge.setup.row_prompts import BESIDE, REFUSED
from nex_merge.wording import first_line

FORMATS = ".jsonl, .json, .txt, .csv or .parquet"
# What programs write into a CSV for a value that is missing. Other formats have a null for it.
_MISSING = ("none", "null", "na", "n/a", "nan", "<na>", "#n/a", "nil")
# Rows of a Parquet file that are read at once.
_ROWS = 256
# Characters of a JSON array, which is held in memory.
_LARGEST = 128 * 2**20


class Columns:
    """Which columns of rows are read for prompts, and which there are.

    name: the one that the user named; None: those of a known format. labels: also those that say what is right.
    setting: what names another column, for messages.
    """

    def __init__(self, name: str | None = None, setting: str = "", labels: bool = False) -> None:
        self.name, self.setting, self.labels = name, setting, labels
        self.seen: dict[str, None] = {}  # all that there are, in their order
        self.known: Format | None = None  # the format of a table

    def see(self, columns: Collection[str]) -> None:
        self.seen.update(dict.fromkeys(columns))

    def chosen(self, columns: Sequence[str], where: str, chats: bool = True) -> list[str]:
        """Those of a table's columns that are read, the one with the prompt first.

        chats: whether a field can hold a conversation. Raises InputError, naming the columns, if none is known to
        hold prompts, or several are.
        """
        self.see(columns)
        if self.name is not None:
            main = (self.name,)
        elif "prompt" in columns or (chats and "messages" in columns):
            main = ("prompt",)
        else:
            self.known = fitting(columns, where, self.setting)
            if self.known is None or not (chats or "conversations" not in self.known.columns):
                self._refuse(columns, where, "prompt")
            main = self.known.columns
        if self.name is not None and self.name not in columns:
            self._refuse(columns, where, self.name)
        labels = LABELS if self.labels else ()
        return [one for one in dict.fromkeys((*main, *BESIDE, *REFUSED, *labels)) if one in columns]

    def _refuse(self, columns: Sequence[str], where: str, wanted: str) -> NoReturn:
        known = [name for name in columns if name]
        there = nearest(wanted, known, "columns")
        if not self.setting:
            raise InputError(f"{where}: expected the column {wanted!r}, or those of a known format, got none.{there}")
        raise InputError(
            f"{self.setting}: expected a column of {where}, got {wanted!r}.{there} Name the one with the prompts "
            f"(--set {self.setting}=NAME)"
        )


def file_rows(
    path: Path, columns: Columns, limit: int | None = None
) -> Iterator[tuple[str, str | Mapping[str, Any] | InputError]] | None:
    """(place for messages, row) of a file of prompts, for `collect`; None if it is of another type.

    A row is a text, or a mapping of columns to values; in its place, the InputError for one that can't be read.
    `limit`: rows that are asked for, of which no more is read than that; None: all.
    """
    match textfiles.file_type(path):
        case ".jsonl":
            return _noted(textfiles.read_jsonl(path), columns)
        case ".json":
            return _noted(_json_rows(path), columns)
        case ".txt":
            return textfiles.read_lines(path)
        case ".csv":
            return _csv_rows(path, columns)
        case ".parquet":
            return _parquet_rows(path, columns, limit)
    return None


def _noted(
    rows: Iterator[tuple[str, Mapping[str, Any] | InputError]], columns: Columns
) -> Iterator[tuple[str, Mapping[str, Any] | InputError]]:
    for where, row in rows:
        if not isinstance(row, InputError):
            columns.see(row)
        yield where, row


def _json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | InputError]]:
    text = textfiles.read_text(path, _LARGEST)
    try:
        items: Any = parse_json(text, str(path))
    except InputError as error:
        hint = ". Is it JSONL, one object per line? Name it .jsonl" if "Extra data" in str(error) else ""
        raise InputError(f"{error}{hint}") from None
    if not isinstance(items, list):
        raise InputError(f"{path}: expected a JSON array of objects, got {text.strip()[:40]!r}")
    for number, item in enumerate(items, 1):
        where = f"{path} row {number}"
        wrong = InputError(f"{where}: expected a JSON object, got {json.dumps(item)[:40]}")
        yield where, item if isinstance(item, Mapping) else wrong


def _csv_rows(path: Path, columns: Columns) -> Iterator[tuple[str, Mapping[str, Any] | InputError]]:
    chosen: list[str] = []
    for where, row in textfiles.read_csv(path, columns.name or "prompt"):
        if isinstance(row, InputError):
            yield where, row
            continue
        chosen = chosen or columns.chosen(list(row), str(path), chats=False)
        try:
            yield where, _filled(row, where, chosen, columns.name)
        except InputError as error:
            yield where, error


def _filled(row: Mapping[str, str], where: str, chosen: Sequence[str], column: str | None) -> Mapping[str, Any]:
    """The fields of a row of CSV that a prompt is made of. An empty one is none."""
    main, *others = chosen
    if row[main].strip().lower() in _MISSING:
        raise InputError(
            f"{where}: {main}: expected text, got {row[main]!r}, which programs write for a missing value. "
            "Remove the row; a prompt of just this word can be given as JSONL"
        )
    beside = {key: row[key] for key in others if row[key].strip()}
    for key in beside:
        if key in (*BESIDE, *REFUSED) and key not in ("system", *OPTIONS) and not (key == "messages" and column):
            raise InputError(f"{where}: {key}: not taken from a CSV file; give the prompts as JSONL")
    lists = {key: _list_in(text) if key in BESIDE else text for key, text in beside.items() if key != "messages"}
    return {main: row[main], **lists}


def _list_in(text: str) -> Any:
    """A list that a field of CSV spells as JSON; other text as it is."""
    try:
        value = json.loads(text) if text.lstrip().startswith("[") else text
    except (ValueError, RecursionError):
        return text
    return value


def _parquet_rows(path: Path, columns: Columns, limit: int | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            chosen = columns.chosen(file.schema_arrow.names, str(path))
            number = 0
            for batch in file.iter_batches(min(limit or _ROWS, _ROWS), columns=chosen):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({first_line(error)})") from None
