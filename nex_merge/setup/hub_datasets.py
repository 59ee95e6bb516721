"""Data sets, from disk or the hub, by the `datasets` library, which no other module knows."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nex_merge.checkpoints.hub import is_reachable
from nex_merge.errors import InputError
from nex_merge.setup.config import find_file
from nex_merge.setup.paths import check_readable
from nex_merge.setup.prompts_config import DatasetConfig
from nex_merge.setup.textfiles import file_type, read_csv

if TYPE_CHECKING:
    from datasets import Dataset

# Seconds in which the hub has to answer. By itself, `datasets` tries for 24 s before it looks into its cache.
_REACHED = 5.0
_BUILDERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk writes


def open_dataset(config: DatasetConfig) -> "Dataset":
    """The rows of a data set's split.

    Raises InputError if there is no such data set, configuration or split, it can't be read, or the hub can't be
    reached and the cache doesn't have it.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    path = find_file(config.path) if config.path else None  # an empty path is the working directory
    try:
        if path is None:
            found = _from_hub(config)
        else:
            with hub_or_cache(needed=False):
                found = _from_disk(path, config)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, StopIteration, DatasetsError) as error:
        said = reason(error)
        if "corresponds to no data" in said or isinstance(error, StopIteration):  # as `datasets` says no rows
            raise InputError(f"prompts.dataset: expected at least one prompt, got none in {config.path}") from None
        raise InputError(f"prompts.dataset: {config.path}: {said}") from None
    if isinstance(found, datasets.Dataset):
        return found
    splits = [str(name) for name in found]
    if config.split is not None and config.split not in splits:
        raise InputError(f"prompts.dataset.split: expected one of {', '.join(splits)}, got {config.split!r}")
    if config.split is None and len(splits) > 1:
        raise InputError(f"prompts.dataset.split: expected one of {', '.join(splits)}, got none")
    return found[config.split or splits[0]]


def _from_disk(path: Path, config: DatasetConfig):
    import datasets

    saved = path.is_dir() and any((path / name).is_file() for name in _SAVED)
    if config.name is not None and (saved or path.is_file()):
        raise InputError(f"prompts.dataset.name: expected none, as {path} has no configurations, got {config.name!r}")
    if saved:
        return datasets.load_from_disk(str(path))
    if path.is_dir():
        return datasets.load_dataset(str(path.absolute()), config.name, split=config.split)
    check_readable(path, "prompts.dataset.path")
    builder = _BUILDERS.get(file_type(path))
    if builder is None:
        raise InputError(
            f"prompts.dataset.path: expected a file of type {', '.join(_BUILDERS)}, or a folder, got {path}"
        )
    if builder == "csv":  # `datasets` renames the second of two columns that are called the same
        next(read_csv(path, config.column or "prompt"), None)
    return datasets.load_dataset(builder, data_files=str(path), split=config.split)


def _from_hub(config: DatasetConfig):
    import datasets

    if not _HUB_ID.fullmatch(config.path):
        raise InputError(
            "prompts.dataset.path: expected a file, a folder or a data set on the hub (owner/name), got "
            f"{config.path!r}, and there is no such file or folder"
        )
    try:
        with hub_or_cache():
            return datasets.load_dataset(config.path, config.name, split=config.split)
    except ConnectionError:
        raise InputError(
            f"prompts.dataset.path: {config.path!r} is no local file or folder, the hub can't be reached, and the "
            "cache of `datasets` doesn't have it"
        ) from None


@contextmanager
def hub_or_cache(needed: bool = True) -> Iterator[None]:
    """Within it, `datasets` takes what it loads from its cache at once if the hub is out of reach, or not needed."""
    import datasets
    from datasets import config

    was, hidden = config.HF_HUB_OFFLINE, datasets.are_progress_bars_disabled()
    offline = was or not needed or not is_reachable(_REACHED)
    config.HF_HUB_OFFLINE = offline
    if offline:  # nothing that takes time
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = was
        if not hidden:
            datasets.enable_progress_bars()


def reason(error: BaseException) -> str:
    """What a library says of a failure, in one line: of the first cause, which tells more than what it led to."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= 300 else f"{said[:300]}..."
