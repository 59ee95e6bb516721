"""Where a configuration takes its prompts from (a file, a data set, a task) -> Prompts, and what is to be said of them.

Knows nothing of chat templates and models.
"""

import hashlib
import heapq
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from nex_merge.errors import InputError
from nex_merge.records import Prompt
from nex_merge.setup import textfiles
from nex_merge.setup.config import find_file
from nex_merge.setup.paths import check_readable
from nex_merge.setup.prompt_rows import FORMATS, Columns, file_rows
from nex_merge.setup.prompts_config import DatasetConfig, PromptsConfig, SampleConfig
from nex_merge.setup.row_formats import LABELS, recognised
from nex_merge.setup.row_prompts import ASKED_WITH, BESIDE, user_prompt
from nex_merge.wording import counted, listed

Row = TypeVar("Row")
_LISTED = 8  # columns that are named


@dataclass(frozen=True)
class LoadedPrompts:
    """Prompts, and what a user might not expect of where they come from."""

    prompts: tuple[Prompt, ...]
    about: str  # which they are, in a line
    notes: tuple[str, ...]  # what is left out, a line each
    file: Path | None = field(default=None, repr=False)

    def sha256(self) -> str:
        """What tells them from others: the file's content; without one, that of the prompts themselves."""
        if self.file is not None:
            return textfiles.digest_of(self.file)
        content = [[p.messages, p.raw, p.choices, p.lettered, p.template] for p in self.prompts]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def load_prompts(config: PromptsConfig) -> tuple[Prompt, ...]:
    """The prompts that a configuration names: the first `limit`, or `sample.n` at random. Raises as `load`."""
    return load(config).prompts


def load(config: PromptsConfig) -> LoadedPrompts:
    """The prompts that a configuration names, and what is to be said of them; with `limit`, nothing beyond is read.

    Raises InputError, with file and line, if they are missing, none, not in one of the supported formats, or not text
    that a person can have meant; and if a data set or task can't be found or reached.
    """
    if config.dataset is not None:
        return _of_dataset(config, config.dataset)
    if config.task is not None:
        return _of_task(config, config.task)
    path = find_file(config.file or "") or Path(config.file or "")
    if not path.is_absolute() and not path.exists():
        raise InputError(
            f"prompts.file: no such file: {config.file!r} (relative paths start at the working directory: {Path.cwd()})"
        )
    check_readable(path, "prompts.file", f"a file of type {FORMATS}")
    columns = Columns(config.column, "prompts.column")
    rows = file_rows(path, columns, config.limit)
    if rows is None:
        hint = ". Save it with commas" if textfiles.file_type(path) == ".tsv" else ""
        raise InputError(f"prompts.file: expected a file of type {FORMATS}, got {path}{hint}")
    return _loaded(*_taken(rows, config), columns, config, config.place[1], path)


def _of_dataset(config: PromptsConfig, dataset: DatasetConfig) -> LoadedPrompts:
    from nex_merge.setup.hub_datasets import open_dataset

    place = config.place[1]
    columns = Columns(dataset.column, "prompts.dataset.column")
    table = open_dataset(dataset)
    table = table.select_columns(columns.chosen(table.column_names, place))
    numbers, count = _taken(range(len(table)), config)
    rows = ((f"{place} row {number + 1}", table[number]) for number in numbers)
    found = _loaded(rows, count, columns, config, place)
    reported = "test" in (dataset.split, str(table.split))
    return _warned(found, "prompts.dataset.split", "test") if reported else found


def _of_task(config: PromptsConfig, name: str) -> LoadedPrompts:
    from nex_merge.setup.lm_eval_prompts import open_task

    task = open_task(name, config.split)
    place = f"{name} ({task.split})"
    numbers, count = _taken(range(len(task.documents)), config)
    rows = ((f"{place} row {number + 1}", task.row(number)) for number in numbers)
    found = _loaded(rows, count, Columns("prompt"), config, place)
    return _warned(found, "prompts.split", task.split) if task.reported else found


def _warned(found: LoadedPrompts, setting: str, split: str) -> LoadedPrompts:
    """A search sees no labels, but the merge that it finds is the best on these prompts, more than on others."""
    note = (
        f"warning: {setting}: {split} is the split that results are reported on; those of a merge chosen on it are too "
        "good. Search on another one"
    )
    return replace(found, notes=(note, *found.notes))


def _taken(rows: Iterable[Row], config: PromptsConfig) -> tuple[Iterable[Row], int | None]:
    """(The rows that are asked for, how many there are, if they were counted)."""
    if config.sample is None:
        return itertools.islice(rows, config.limit), None
    return drawn(rows, config.sample)


def _loaded(
    rows: Iterable[tuple[str, Any]],
    count: int | None,
    columns: Columns,
    config: PromptsConfig,
    place: str,
    file: Path | None = None,
) -> LoadedPrompts:
    used: dict[str, None] = {}
    answered: list[str] = []

    def read(where: str, row: str | Mapping[str, Any]) -> Prompt:
        if isinstance(row, str):
            return user_prompt(row, where)
        found = recognised(row, where, columns.name, columns.setting, columns.known)
        prompt = found.prompt(where, columns.setting)
        used.update(dict.fromkeys(found.keys))
        if found.answered:
            answered.append(where)
        return prompt

    prompts = textfiles.collect(rows, read)
    if not prompts:
        raise InputError(f"{config.place[0]}: expected at least one prompt, got none in {place}")
    unread = [column for column in columns.seen if column and column not in (*used, *BESIDE, *ASKED_WITH)]
    notes = []
    if config.sample is not None and count is not None and count < config.sample.n:
        notes.append(f"prompts.sample: n is {config.sample.n}, and {place} has {counted(count, 'row')}: all are used")
    if answered:
        notes.append(
            f"prompts: {len(answered)} of {counted(len(prompts), 'prompt')} {'ends' if len(answered) == 1 else 'end'} "
            f"with a message of the assistant, which is an answer and is left out ({answered[0]} is one)"
        )
    if labels := [column for column in unread if column in LABELS]:
        notes.append(
            f"prompts: {_columns(labels)} of {place} {'is' if len(labels) == 1 else 'are'} not read: labels are for "
            "`nex-merge benchmark --data` and `correlate` alone"
        )
    return LoadedPrompts(
        tuple(prompts), _about(len(prompts), count, config, place, list(used), unread), tuple(notes), file
    )


def _about(
    prompts: int, count: int | None, config: PromptsConfig, place: str, used: list[str], unread: list[str]
) -> str:
    """Which prompts were taken from where, in a line."""
    which, draw = f"the first {prompts}" if config.limit == prompts else str(prompts), ""
    if config.sample is not None and count is not None:
        which, draw = f"{prompts} of {count}", f", drawn with seed {config.sample.seed}"
    columns = f", {_columns(used)}" if used and config.task is None else ""
    ignored = f"; not read: {listed(unread, _LISTED)}" if unread else ""
    return f"{which} of {place}{draw}{columns}{ignored}"


def drawn(rows: Iterable[Row], sample: SampleConfig) -> tuple[list[Row], int]:
    """(`sample.n` of the rows, in their order, how many rows there are).

    A row's place in the draw is a hash of the seed and its number: the same on every machine, and a larger sample has
    all rows of a smaller one. No more rows than that are held.
    """
    count = 0

    def placed() -> Iterator[tuple[bytes, int, Row]]:
        nonlocal count
        for number, row in enumerate(rows):
            count = number + 1
            yield hashlib.sha256(f"{sample.seed} {number}".encode()).digest(), number, row

    first = heapq.nsmallest(sample.n, placed())
    return [row for _, _, row in sorted(first, key=lambda item: item[1])], count


def _columns(names: list[str]) -> str:
    return f"column{'s' * (len(names) > 1)} {listed(map(repr, names), _LISTED)}"
