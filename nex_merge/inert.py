"""Text from models, files and databases as it may be shown: it says what it says, and does nothing.

One function for each place that text goes to; `terminal.py` applies them to what commands print. HTML is escaped by its
templates.
"""

import json
import logging
import os
import re
import shlex
import unicodedata

_CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's categories of characters that act rather than show
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # what spreadsheets take for the start of one, wide forms too
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_MARKUP = "\\`*[]{}<>|#~&"


def visible(text: str) -> str:
    """For a terminal: control and format characters as visible symbols, except line feeds and tabs.

    Escape sequences and bidirectional marks in a response would otherwise act on the terminal.
    """
    return text if text.isascii() and text.isprintable() else "".join(_symbol(character) for character in text)


def one_line(text: str) -> str:
    """As `visible`, on one line: a name or a reason can't pass for a line of ours."""
    return " ".join(visible(text).split())


def json_text(value: object, indent: int | None = 1) -> str:
    """JSON for a terminal: ASCII, with every control character escaped."""
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")


def csv_cell(value: object) -> object:
    """For a cell of a CSV file: text that a spreadsheet would run as a formula gets an apostrophe in front of it."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    # Spreadsheets may take off blanks and the like in front.
    begins = "".join(text.split()).lstrip("\u2400\ufffd")
    is_formula = begins.startswith(_FORMULA) and not _NUMBER.fullmatch(text.strip())
    return f"'{text}" if is_formula or value[:1] in ("\t", "\r") else text


def markdown(text: str) -> str:
    """For running text or a cell of a table in Markdown: one line in which nothing is markup."""
    escaped = "".join(f"\\{character}" if character in _MARKUP else character for character in one_line(text))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped)  # within a word it is none


def shell_word(text: str) -> str:
    """A word to be copied into a shell: what would act on a terminal in the notation of bash and zsh, $'...'."""
    if visible(text) == text and "\n" not in text and "\t" not in text:
        return shlex.quote(text)
    shown = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b"'\\" else f"\\x{byte:02x}" for byte in os.fsencode(text)
    )
    return f"$'{shown}'"


class Formatter(logging.Formatter):
    """Log messages, which may quote anything, as `visible` has them."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _symbol(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or unicodedata.category(character) not in _CONTROLS:
        return character
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's control pictures
    return "\u2421" if code == 0x7F else "\ufffd"
