"""Text files that people bring -> their lines and rows. Nothing is guessed: what can be read in two ways is refused.

Shared by prompts, labelled problems, responses, annotations and accuracies. Knows encodings, CSV and JSON; knows
nothing of what the files are for.
"""

import codecs
import csv
import gzip
import io
import json
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError
from nex_merge.wording import counted

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
# Control characters that occur in ordinary text: tab, line feed, carriage return, next line.
_ORDINARY = "\t\n\r\x85"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)


def file_type(path: Path) -> str:
    """The suffix that names a file's format, in lower case; `.gz` does not count."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix == ".gz" else suffix


def read_text(path: Path) -> str:
    """The text of a file: UTF-8, or what its byte order mark says; gzip is unpacked; every line ends with a line feed.

    Raises InputError if it cannot be read as that.
    """
    data = _unpacked(path)
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise InputError(f"{path}: not valid {encoding.upper()}, which its byte order mark announces") from None
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path} line {line}: expected UTF-8 text, got the byte 0x{data[error.start]:02x}. If it is in another "
            f"encoding, such as Latin-1: iconv -f LATIN1 -t UTF-8"
        ) from None
    if encoding == "utf-8" and data[:512].count(0) * 3 > len(data[:512]):
        raise InputError(
            f"{path}: expected UTF-8 text, got what looks like UTF-16 without a byte order mark. Convert it: "
            "iconv -f UTF-16LE -t UTF-8"
        )
    # A mark in front of a later line is what `cat` leaves of a second file.
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\n\ufeff", "\n")


def _unpacked(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path}: a damaged or incomplete gzip file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    for begin, kind in _PACKED.items():
        if data.startswith(begin):
            raise InputError(f"{path}: expected text, also packed with gzip, got {kind}; unpack it first")
    return data


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(place for messages, text) of every line that is not blank. Only line ends split, not U+2028 and the like."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield f"{path} line {number}", line


def read_jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place for messages, object) of every line of a JSONL file that is not blank.

    Raises InputError, naming the line, if it is not a JSON object.
    """
    for where, line in read_lines(path):
        try:
            value = parse_json(line, where)
        except InputError:
            _refuse_whole_json(path)
            raise
        if not isinstance(value, Mapping):
            _refuse_whole_json(path)
            raise InputError(f"{where}: expected a JSON object, got {line.strip()[:40]}")
        yield where, value


def _refuse_whole_json(path: Path) -> None:
    """Say so if the file is one JSON document over several lines."""
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


def parse_json(text: str, where: str) -> Any:
    """The JSON value in `text`. Raises InputError, naming `where`, for what JSON forbids, and for duplicate keys."""

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"{where}: the key {twice!r} occurs twice; keep one of them")
        return found

    def constant(name: str) -> Any:
        raise InputError(f"{where}: {name} is not a JSON value; use null, or leave the key out")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except json.JSONDecodeError as error:
        at = f" in line {error.lineno}" if "\n" in text.strip() else f" at character {error.colno}"
        raise InputError(f"{where}: not valid JSON ({error.msg}{at})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON ({error})") from None


def read_csv(path: Path, wanted: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """(place for messages, fields by column) of every row of a comma-separated file that is not blank.

    `wanted`: a column that has to be there. Raises InputError, naming the line, for a row that has more or fewer
    fields than the header, for quotes that don't match, and for a column that is missing or occurs twice.
    """
    text = read_text(path)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    while True:
        where = f"{path} line {reader.line_num + 1}"
        try:
            fields = next(reader, None)
        except csv.Error as error:
            reason = "a quote is opened and never closed" if "unexpected end" in str(error) else str(error)
            raise InputError(f'{where}: {reason}. Within a quoted field, a quote is written twice: ""') from None
        if fields is None:
            break
        if not fields:
            continue
        if header is None:
            header = _header(path, [name.strip() for name in fields], wanted)
            continue
        if len(fields) != len(header):
            raise InputError(
                f"{where}: expected {counted(len(header), 'field')}, as in the header, got "
                f'{len(fields)}. Put a field that holds a comma or a line break in quotes: "..."'
            )
        for name, field in zip(header, fields, strict=True):
            if field != field.lstrip() and field.lstrip().startswith('"'):
                raise InputError(f"{where}: {name}: a blank before a quote makes it part of the text; remove the blank")
        yield where, dict(zip(header, fields, strict=True))
    if header is None:
        raise InputError(f"{path}: is empty; expected a header with the column {wanted!r}")


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
    for character in text:
        if "\ud800" <= character <= "\udfff":
            raise InputError(
                f"{where}: half of a surrogate pair (U+{ord(character):04X}): the text was cut in the middle of a "
                "character. Remove it"
            )


def check_text(text: str, where: str) -> None:
    """As `check_unicode`, and raise InputError for control characters other than tab and line ends."""
    check_unicode(text, where)
    for character in text:
        if unicodedata.category(character) == "Cc" and character not in _ORDINARY:
            name = f"U+{ord(character):04X}{_named(character)}"
            hint = "; Windows-1252 read as Latin-1 has these" if character >= "\x80" else ""
            raise InputError(f"{where}: the control character {name}{hint}. Remove it")


def _named(character: str) -> str:
    names = {"\0": "NUL", "\x07": "bell", "\b": "backspace", "\v": "vertical tab", "\f": "form feed", "\x1b": "ESC"}
    name = {**names, "\x7f": "DEL"}.get(character)
    return f" ({name})" if name else ""


def parse_number(text: str) -> float | None:
    """A decimal number in ASCII digits; None if `text` is something else, also where Python's float() would do."""
    return float(text) if _NUMBER.fullmatch(text.strip()) else None
