"""What `nex-merge consensus` is given -> the models to be ranked, each with its files. Reads no more than a first line.

lm-eval's `--log_samples` writes FOLDER/samples_TASK_TIME.jsonl, a folder for each model and a file for each task. All
other files hold one model each.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nex_merge.answer_files.lines import check_jsonl
from nex_merge.errors import InputError
from nex_merge.setup.textfiles import read_jsonl

# lm-eval's own name for a file of samples; the time is that of the run, and no part of the task.
_NAME = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d\d-\d\dT[\d.-]+)?\.jsonl(?:\.gz)?")
# A line with all of these is lm-eval's, whatever the name of its file.
_KEYS = {"doc_id", "doc", "arguments", "resps"}


@dataclass(frozen=True)
class Source:
    """One model."""

    name: str  # the file; for samples of lm-eval, the folder
    file: Path | None  # of prompts and responses
    tasks: dict[str, Path]  # of lm-eval: the file of each task


def find_sources(given: Sequence[Path]) -> list[Source]:
    """The models of files and folders, in the order given. Samples that lie in one folder are one model's.

    Raises InputError for what can't be read, for a folder without samples or with several of one task, for samples
    that are not named as lm-eval names them, and for samples beside other files.
    """
    plain: list[Source] = []
    folders: dict[str, dict[str, Path]] = {}
    seen: set[Path] = set()
    for file in (file for path in given for file in _files(path)):
        if file.resolve() in seen:
            raise InputError(f"{file}: given twice; one model's answers would count as two models that agree")
        seen.add(file.resolve())
        if not _is_samples(file):
            plain.append(Source(str(file), file, {}))
            continue
        # The working directory itself has a name, too.
        folder = file.parent.resolve().name if file.parent == Path() else str(file.parent)
        tasks = folders.setdefault(folder, {})
        task = _task(file)
        if task in tasks:
            raise InputError(
                f"{folder}: expected one file of samples for each task, got two of {task}: {tasks[task].name} and "
                f"{file.name}. Name the one that is meant instead of the folder; if they are of different models, give "
                "each model a folder"
            )
        tasks[task] = file
    if plain and folders:
        raise InputError(
            f"{plain[0].name}: expected samples of lm-eval, as in {next(iter(folders))}, got other answers; the two "
            "name their prompts differently, and can't be compared"
        )
    return plain or [Source(name, None, tasks) for name, tasks in folders.items()]


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        if path.name.startswith("results_") and path.suffix == ".json":
            raise InputError(
                f"{path}: expected samples of lm-eval (samples_TASK_TIME.jsonl), got its results, without responses"
            )
        check_jsonl(path)
        yield path
        return
    found = sorted(file for file in path.iterdir() if _NAME.fullmatch(file.name))
    if not found:
        below = any(_NAME.fullmatch(file.name) for file in path.glob("*/*"))
        hint = f"; the folders in it have some: {path}/*" if below else ""
        raise InputError(f"{path}: expected a folder with lm-eval's samples_TASK_TIME.jsonl, got none in it{hint}")
    yield from found


def _is_samples(file: Path) -> bool:
    _, first = next(iter(read_jsonl(file)), ("", None))
    if first is None or isinstance(first, InputError):  # empty or damaged, which is said when it is read
        return _NAME.fullmatch(file.name) is not None
    return first.keys() >= _KEYS


def _task(file: Path) -> str:
    if (named := _NAME.fullmatch(file.name)) is None:
        raise InputError(
            f"{file}: expected samples of lm-eval in a file with lm-eval's own name, which tells the model and the "
            "task: MODEL/samples_TASK_TIME.jsonl (TIME may be left out)"
        )
    return named["task"]
