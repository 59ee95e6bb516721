"""Text from models, files and databases as it may be shown: it says what it says, and does nothing.

One function for each place that text goes to. HTML is escaped by its templates.
"""

import unicodedata


def visible(text: str) -> str:
    """For a terminal: control and format characters as visible symbols, except line feeds and tabs.

    Escape sequences and bidirectional marks in a response would otherwise act on the terminal.
    """
    return "".join(_symbol(character) for character in text)


def csv_cell(value: object) -> object:
    """For a cell of a CSV file: text that a spreadsheet would run as a formula gets an apostrophe in front of it."""
    if not isinstance(value, str):
        return value
    return f"'{value}" if value.lstrip().startswith(("=", "+", "-", "@")) or (value[:1] in "\t\r" and value) else value


def markdown(text: str) -> str:
    """For running text or a cell of a table in Markdown: one line in which nothing is markup."""
    line = " ".join(visible(text).split())
    return "".join(f"\\{character}" if character in "\\`*_{}[]<>|#~" else character for character in line)


def _symbol(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's control pictures
    return "\u2421" if code == 0x7F else "\ufffd"
