"""What ends a command: mistakes on the command line in plain words, and output that nobody takes any more."""

import difflib
import io
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from typer.exceptions import TyperException

from nex_merge.passwords import masked

# What is sometimes looked for as an option.
_INSTEAD = dict.fromkeys(("--resume", "--continue"), "The same command goes on where a search stopped.")
_CLOSE = 0.75  # how similar an option has to be that was meant


def usage_message(error: TyperException) -> str:
    """A mistake on the command line on one line: the option, what was expected, what was given, where to look."""
    return masked(_usage(error))


def _usage(error: TyperException) -> str:
    known: Any = error
    context, parameter = getattr(known, "ctx", None), getattr(known, "param", None)
    look = f"See {context.command_path if context is not None else 'nex-merge'} --help"
    if (option := getattr(known, "option_name", None)) is not None and hasattr(known, "possibilities"):
        close = difflib.get_close_matches(option, known.possibilities or (), 1, _CLOSE)
        hint = f"Did you mean {close[0]}?" if close else _INSTEAD.get(option, "")
        said = f"{error.message[:1].lower()}{error.message[1:]}."
        return " ".join(filter(None, (said, hint, look)))
    if parameter is None:
        message = error.format_message().rstrip(".")
        return f"{message[:1].lower()}{message[1:]}{'' if message.endswith('?') else '.'} {look}"
    name = max(parameter.opts, key=len)
    if not name.startswith("-"):
        name = parameter.metavar or name.upper()
    if not isinstance(error.__cause__, ValidationError):
        return f"{name}: is missing. {look}" if not error.message else f"{name}: {error.message.rstrip('.')}. {look}"
    # typer converts values with pydantic, whose words they are.
    first = error.__cause__.errors()[0]
    given = first["input"] if "ge" in first.get("ctx", {}) else repr(first["input"])
    return f"{name}: expected {_expected(first)}, got {given}. {look}"


def _expected(error: Mapping[str, Any]) -> str:
    if error["type"].startswith("int_"):
        return "an integer"
    if error["type"].startswith("float_"):
        return "a number"
    if "ge" in error.get("ctx", {}):
        return f"at least {error['ctx']['ge']}"
    if choices := re.search(r"is not one of (.+?)\.?$", error["msg"]):
        *others, last = choices[1].replace("'", "").split(", ")
        return f"{', '.join(others)} or {last}"
    return error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")


def replace_unencodable() -> None:
    """Print question marks for characters that the output's encoding lacks, instead of failing at the end of a run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def drop_output() -> None:
    """Let what a closed or full stdout has not taken yet go nowhere; otherwise Python complains at its end."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
