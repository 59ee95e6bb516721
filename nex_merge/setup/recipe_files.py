"""Recipes that people have: files and folders → mergekit configurations by name, in the YAML that mergekit reads (1.1).

Knows nothing of what a recipe means; `merging/user_recipes.py` does.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from nex_merge.errors import InputError
from nex_merge.setup.config import find_file
from nex_merge.setup.paths import check_readable
from nex_merge.setup.textfiles import read_text

_ENDINGS = (".yml", ".yaml")


def read_recipes(entries: Sequence[str], source: str) -> dict[str, dict[str, Any]]:
    """The content of every recipe, in order, by file name; by path where two files share a name.

    `entries`: files, and folders of *.yml and *.yaml, which are taken in sorted order. `source` begins the messages.
    Raises InputError if a file is missing, given twice or no YAML mapping, or a folder has no recipe.
    """
    paths = [path for i, entry in enumerate(entries) for path in _paths(entry, f"{source}.{i}")]
    for path, times in Counter(path.resolve() for path in paths).items():
        if times > 1:
            raise InputError(f"{source}: expected every recipe once, got {path} {times} times")
    shared = {name for name, times in Counter(path.name for path in paths).items() if times > 1}
    return {str(path) if path.name in shared else path.name: read_recipe(path) for path in paths}


def _paths(entry: str, source: str) -> list[Path]:
    path = find_file(entry) or Path(entry)
    if not path.is_dir():
        check_readable(path, source, "a mergekit configuration, or a folder of them")
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix in _ENDINGS and file.is_file())
    if not found:
        raise InputError(f"{source}: expected a folder with mergekit configurations (*.yml, *.yaml), got {str(path)!r}")
    return found


def read_recipe(path: Path) -> dict[str, Any]:
    """The content of a file for mergekit. Raises InputError if it is missing, or no YAML mapping."""
    check_readable(path, str(path), "a mergekit configuration")
    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"{path} line {mark.line + 1}" if mark is not None else str(path)
        advice = "; give every recipe a file of its own" if "single document" in str(error) else ""
        raise InputError(f"{where}: not valid YAML: {problem or 'nested too deeply'}{advice}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mergekit configuration, a mapping with merge_method and models")
    return content
