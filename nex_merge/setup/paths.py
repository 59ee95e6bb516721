"""Names of files and folders as people write them: `~`, variables, what can be read or written, and shell quoting."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from nex_merge.atomic import is_being_written
from nex_merge.errors import InputError, RunError
from nex_merge.inert import shell_word

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([^}]*)\})")


def expand(name: str) -> str:
    """`name` with `~` and environment variables replaced; a file that has a `$` in its own name is left alone.

    Raises ValueError, in words that follow "expected", if there is no home folder, a variable is not set, or the name
    is not UTF-8.
    """
    if not _is_utf8(name):
        raise ValueError(f"a name in UTF-8, got {name!r}; rename the file or folder")
    if "\0" in name:
        raise ValueError(f"a name without NUL characters, got {name!r}")
    if "$" in name and not os.path.lexists(name):
        for match in _VARIABLE.finditer(name):
            if (match[1] or match[2]) not in os.environ:
                raise ValueError(f"a variable that is set, got {match[0]} in {name!r}; set it, or write out the path")
        # Not os.path.expandvars, which would look into what it has just put in.
        name = _VARIABLE.sub(lambda match: os.environ[match[1] or match[2]], name)
    if not name.startswith("~"):
        return name
    try:
        return str(Path(name).expanduser())
    except RuntimeError:
        user = name.partition("/")[0]
        raise ValueError(f"a path, got {name!r}: {user} has no home folder here; write out the path") from None


def _is_utf8(name: str) -> bool:
    """Whether the bytes of a name are UTF-8, also where the locale says that there is only ASCII."""
    try:
        (os.fsencode(name) if any("\udc80" <= c <= "\udcff" for c in name) else name.encode()).decode()
    except UnicodeError:
        return False
    return True


def expand_url(url: str) -> str:
    """As `expand`, for the URL of a database: the path of sqlite:///PATH."""
    scheme, separator, path = url.partition(":///")
    return f"{scheme}{separator}{expand(path)}" if separator else expand(url)


# A path, and the URL of a database, in a configuration: expanded once, when the configuration is read.
PathName = Annotated[str, AfterValidator(expand)]
DatabaseName = Annotated[str, AfterValidator(expand_url)]


def expand_for(name: str, source: str) -> str:
    """As `expand`. Raises InputError, which begins with `source`."""
    try:
        return expand(name)
    except ValueError as error:
        raise InputError(f"{source}: expected {error}") from None


def check_readable(path: Path, source: str, wanted: str = "a file") -> None:
    """Raise InputError unless `path` is a regular file that can be opened. `source` begins the message."""
    try:
        if not path.exists():
            broken = " (a link whose target is gone)" if path.is_symlink() else ""
            raise InputError(f"{source}: no such file: {str(path)!r}{broken}")
        if path.is_dir():
            raise InputError(f"{source}: expected {wanted}, got the folder {str(path)!r}")
        if not path.is_file():
            raise InputError(
                f"{source}: expected {wanted}, got {str(path)!r}, a pipe or device, which cannot be read twice; save "
                "its content to a file first"
            )
        with open(path, "rb"):
            pass
    except OSError as error:
        raise InputError(f"{source}: cannot read {str(path)!r}: {_reason(error)}") from None


def check_writable_folder(folder: Path, source: str) -> None:
    """Raise InputError unless `folder` is one that can be written to, or can be made."""
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{source}: expected a folder, got the file {str(folder)!r}; choose another name")
        place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise InputError(f"{source}: cannot use {str(folder)!r}: {_reason(error)}") from None
    if not place.is_dir():
        raise InputError(f"{source}: cannot make {str(folder)!r}: {str(place)!r} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{source}: cannot write to {str(place)!r}: permission denied; choose another folder")


def check_new_folder(folder: Path, source: str) -> None:
    """Raise InputError unless a new folder can take the place of `folder`; RunError if another process is making it."""
    check_writable_folder(folder, source)
    there = folder.is_dir()
    # Left-overs of a process that was killed are removed, so that they are in nobody's way.
    if is_being_written(folder):
        raise RunError(f"{source}: another process is writing {folder}; wait for it, or choose another name")
    if not there:
        return
    if any(folder.iterdir()):
        raise InputError(
            f"{source}: expected a new or empty folder, got {folder}, which is not empty; choose another name"
        )
    # A finished folder replaces it whole.
    if folder.resolve() == Path.cwd() or os.path.ismount(folder):
        what = "the working directory" if folder.resolve() == Path.cwd() else "a mount point"
        raise InputError(
            f"{source}: expected a folder that can be replaced, got {what}; name one in it: {folder / 'NAME'}"
        )
    check_writable_folder(folder.resolve().parent, source)


def check_writable_file(path: Path, source: str) -> None:
    """Raise InputError unless a file can be written at `path`; its folder is made if need be."""
    if path.is_dir():
        raise InputError(f"{source}: expected a file name, got the folder {str(path)!r}")
    check_writable_folder(path.parent, source)
    if path.exists() and not os.access(path, os.W_OK):
        raise InputError(f"{source}: cannot write to {str(path)!r}: permission denied; choose another name")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def command(*words: object) -> str:
    """A `nex-merge` command to be copied into a shell. Words in capitals stand for what the reader has to choose."""
    return " ".join(["nex-merge", *(_quoted(word) for word in words)])


def _quoted(word: object) -> str:
    # A file whose name begins with a dash would be taken as an option.
    return shell_word(f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word))
