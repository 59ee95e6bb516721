"""Text files that people bring -> their lines and rows. Nothing is guessed: what can be read in two ways is refused.

Shared by prompts, labelled problems, responses, annotations and accuracies. Knows encodings, CSV and JSON; knows
nothing of what the files are for.
"""

import codecs
import csv
import gzip
import hashlib
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rich.filesize import decimal

from nex_merge.errors import InputError
from nex_merge.setup.jsontext import parse_json
from nex_merge.wording import counted

Row = TypeVar("Row")
Item = TypeVar("Item")
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GZIP = b"\x1f\x8b"
_PACKED = {b"PK\x03\x04": "a zip archive", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_ESCAPED, _HALF = re.compile("[\udc80-\udcff]"), re.compile("[\ud800-\udfff]")
# But those that occur in ordinary text: tab, line feed, carriage return, next line.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
# Characters of a line, and of a file that is read whole: beyond them, it is another file than was meant.
LONGEST = _LARGEST = 16 * 2**20
# Rows with mistakes that are told one by one, and that are counted.
_LISTED, _COUNTED = 10, 10_000
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)


def file_type(path: Path) -> str:
    """The suffix that names a file's format, in lower case; `.gz` does not count."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix == ".gz" else suffix


def digest_of(path: Path) -> str:
    """The SHA-256 of a file's content, which is not held in memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path, most: int = _LARGEST) -> str:
    """The text of a file, every line of which ends with a line feed; see `read_lines` for its encoding.

    Raises InputError if it cannot be read as that, or has more than `most` characters.
    """
    text = "".join(_lines(path, most))
    if len(text) > most:
        raise InputError(f"{path}: larger than {decimal(most)}, which no file of this kind is; is it the right one?")
    return text


def _lines(path: Path, most: int, longest: int | None = None) -> Iterator[str]:
    """The lines of a text file with their line feeds: UTF-8, or what its byte order mark says; gzip is unpacked.

    Only what is taken is read. Ends after more than `most` characters in all, and refuses a line beyond `longest`.
    """
    with _faults_of(path), open(path, "rb") as packed:
        file = gzip.GzipFile(fileobj=packed) if packed.peek(2).startswith(_GZIP) else packed
        begin = file.peek(512)[:512]
        for mark, kind in _PACKED.items():
            if begin.startswith(mark):
                raise InputError(f"{path}: expected text, also packed with gzip, got {kind}; unpack it first")
        encoding = next((name for mark, name in _MARKS if begin.startswith(mark)), "utf-8")
        if encoding == "utf-8" and begin.count(0) * 3 > len(begin):
            raise InputError(
                f"{path}: expected UTF-8 text, got what looks like UTF-16 without a byte order mark. Convert it: "
                "iconv -f UTF-16LE -t UTF-8"
            )
        # Bytes that are no UTF-8 become halves of surrogate pairs, which UTF-8 has none of: so their line is known.
        faults = "surrogateescape" if encoding.startswith("utf-8") else "strict"
        text = io.TextIOWrapper(file, encoding, faults)  # type: ignore[arg-type]
        try:
            read, number = 0, 0
            while read <= most and (line := text.readline((longest or most) + 1)):
                read, number = read + len(line), number + 1
                if longest is not None and len(line) > longest:
                    raise InputError(_too_long(path, number, line))
                if (wrong := _ESCAPED.search(line)) is not None:
                    raise InputError(
                        f"{path} line {number}: expected UTF-8 text, got the byte 0x{ord(wrong[0]) - 0xDC00:02x}. If "
                        "it is in another encoding, such as Latin-1: iconv -f LATIN1 -t UTF-8"
                    )
                # A mark in front of a later line is what `cat` leaves of a second file.
                yield line.removeprefix("\ufeff")
        except UnicodeError:
            raise InputError(f"{path}: not valid {encoding.upper()}, which its byte order mark announces") from None


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """Say in words what keeps a file from being read."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path}: a damaged or incomplete gzip file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None


def _too_long(path: Path, number: int, line: str) -> str:
    kind = ". It looks like a JSON array on one line. Convert it: jq -c '.[]'" if line.lstrip().startswith("[") else ""
    return f"{path} line {number}: longer than {decimal(LONGEST)}, which no prompt or response is{kind}"


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(place for messages, text) of every line that is not blank. Only line ends split, not U+2028 and the like.

    The text is UTF-8, or what the file's byte order mark says; gzip is unpacked. Lines are read as they are taken.
    Raises InputError, naming the line, for one that cannot be read as that or is longer than `LONGEST` characters.
    """
    for number, line in enumerate(_lines(path, sys.maxsize, LONGEST), 1):
        if line.strip():
            yield f"{path} line {number}", line.removesuffix("\n")


def collect(rows: Iterable[tuple[str, Row | InputError]], read: Callable[[str, Row], Item]) -> list[Item]:
    """`read` of every row of a file, given its place and the row.

    Raises one InputError for all rows that are wrong: the first ten, and how many more there are. A fault of the file,
    after which nothing can be read of it, ends them.
    """
    found: list[Item] = []
    wrong: list[tuple[str, str]] = []
    try:
        for where, row in rows:
            try:
                if isinstance(row, InputError):
                    raise row
                found.append(read(where, row))
            except InputError as error:
                wrong.append((where, str(error)))
                if len(wrong) == _COUNTED:
                    break
    except InputError as error:
        wrong.append(("", str(error)))
    if wrong:
        raise InputError(_said(wrong))
    return found


def _said(wrong: Sequence[tuple[str, str]]) -> str:
    """The faults of rows, given with their places: equal ones in one line."""
    lines: dict[str, tuple[str, list[str]]] = {}
    for where, message in wrong[:_LISTED]:
        reason = message.removeprefix(where)
        if reason in lines and where and reason != message:
            lines[reason][1].append(where)
        else:
            lines[reason] = (message, [])
    said = []
    for message, others in lines.values():
        also = f" (also in {', '.join(where.rpartition(' ')[2] for where in others)})" if others else ""
        said.append(message + also)
    if (more := len(wrong) - _LISTED) > 0:
        at_least = "at least " if len(wrong) == _COUNTED else ""
        said.append(f"... and {at_least}{counted(more, 'more row')} with mistakes")
    return "\n".join(said)


def read_jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | InputError]]:
    """(place for messages, object) of every line of a JSONL file that is not blank, for `collect`.

    In place of the object, the InputError for a line that is no JSON object.
    """
    for where, line in read_lines(path):
        try:
            value: Any = parse_json(line, where)
            if not isinstance(value, Mapping):
                value = InputError(f"{where}: expected a JSON object, got {line.strip()[:40]}")
        except InputError as error:
            value = error
        if isinstance(value, InputError):
            _refuse_whole_json(path)
        yield where, value


def _refuse_whole_json(path: Path) -> None:
    """Say so if the file is one JSON document over several lines, or one array."""
    if path.stat().st_size > LONGEST:
        return
    text = read_text(path).strip()
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(whole, list | dict) or (isinstance(whole, dict) and "\n" not in text):
        return
    how = "jq -c '.[]'" if text.startswith("[") else "jq -c ."
    kind = "a JSON array" if text.startswith("[") else "one JSON object over several lines"
    raise InputError(f"{path}: expected one JSON object per line, got {kind}. Convert it: {how}")


def read_csv(path: Path, wanted: str, separator: str = ",") -> Iterator[tuple[str, Mapping[str, str] | InputError]]:
    """(place for messages, fields by column) of every row of a comma-separated file that is not blank, for `collect`.

    `wanted`: a column that has to be there. `separator`: what stands instead of commas in a file of ours that a
    spreadsheet has written anew. In place of the fields, the InputError for a row that has more or fewer than the
    header. Raises InputError, naming the line, for quotes that don't match, and for a column that is missing or occurs
    twice.
    """
    csv.field_size_limit(LONGEST)
    reader = csv.reader(_lines(path, sys.maxsize, LONGEST), strict=True, delimiter=separator)
    header: list[str] | None = None
    while True:
        where = f"{path} line {reader.line_num + 1}"
        try:
            fields = next(reader, None)
        except csv.Error as error:
            opened = "unexpected end" in str(error) or "field limit" in str(error)
            reason = "a quote is opened and never closed" if opened else str(error)
            raise InputError(f'{where}: {reason}. Within a quoted field, a quote is written twice: ""') from None
        if fields is None:
            break
        if not fields:
            continue
        if header is None:
            header = _header(path, [name.strip() for name in fields], wanted)
            continue
        yield where, _row(header, fields, where)
    if header is None:
        raise InputError(f"{path}: is empty; expected a header with the column {wanted!r}")


def _row(header: Sequence[str], fields: Sequence[str], where: str) -> Mapping[str, str] | InputError:
    if len(fields) != len(header):
        return InputError(
            f"{where}: expected {counted(len(header), 'field')}, as in the header, got "
            f'{len(fields)}. Put a field that holds a comma or a line break in quotes: "..."'
        )
    for name, field in zip(header, fields, strict=True):
        if field != field.lstrip() and field.lstrip().startswith('"'):
            return InputError(f"{where}: {name}: a blank before a quote makes it part of the text; remove the blank")
    return dict(zip(header, fields, strict=True))


def _header(path: Path, names: list[str], wanted: str) -> list[str]:
    for name in names:
        if name and names.count(name) > 1:
            raise InputError(f"{path}: the column {name!r} occurs twice in the header; rename or remove one")
    if wanted not in names and len(names) == 1:
        for separator, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")):
            if wanted in [part.strip().strip('"') for part in names[0].split(separator)]:
                raise InputError(
                    f"{path}: expected fields separated by commas, got {word}. Save it as a comma-separated file"
                )
    return names


def check_unicode(text: str, where: str) -> None:
    """Raise InputError if `text` holds half of a surrogate pair, which no encoding can write."""
    if (found := _HALF.search(text)) is not None:
        raise InputError(
            f"{where}: half of a surrogate pair (U+{ord(found[0]):04X}): the text was cut in the middle of a "
            "character. Remove it"
        )


def check_text(text: str, where: str) -> None:
    """As `check_unicode`, and raise InputError for control characters other than tab and line ends."""
    check_unicode(text, where)
    if (found := _CONTROL.search(text)) is not None:
        name = f"U+{ord(found[0]):04X}{_named(found[0])}"
        hint = "; Windows-1252 read as Latin-1 has these" if found[0] >= "\x80" else ""
        raise InputError(f"{where}: the control character {name}{hint}. Remove it")


def _named(character: str) -> str:
    names = {"\0": "NUL", "\x07": "bell", "\b": "backspace", "\v": "vertical tab", "\f": "form feed", "\x1b": "ESC"}
    name = {**names, "\x7f": "DEL"}.get(character)
    return f" ({name})" if name else ""


def parse_number(text: str) -> float | None:
    """A decimal number in ASCII digits; None if `text` is something else, also where Python's float() would do."""
    return float(text) if _NUMBER.fullmatch(text.strip()) else None
