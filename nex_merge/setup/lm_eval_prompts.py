"""Tasks of lm-evaluation-harness -> their prompts, as the task itself words them. Needs the extra `eval`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import TemplateError

from nex_merge.errors import InputError
from nex_merge.setup.config import find_file
from nex_merge.setup.explain import nearest
from nex_merge.setup.hub_datasets import hub_or_cache, reason

_FAULTS = (
    OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, ImportError, TemplateError,
    yaml.YAMLError,
)  # fmt: skip


@dataclass(frozen=True)
class TaskDocuments:
    """The documents of one split of a task."""

    name: str
    split: str
    reported: bool  # whether results of the task are those on this split
    documents: Sequence[Mapping[str, Any]]
    task: Any

    def row(self, number: int) -> dict[str, Any]:
        """A document as a row with `prompt` and, for a task that lets the model choose, `choices`.

        Raises InputError if its wording fails, or is no text.
        """
        document = self.documents[number]
        try:
            text = self.task.doc_to_text(document)
            choices = self.task.doc_to_choice(document) if self.task.OUTPUT_TYPE == "multiple_choice" else None
        except _FAULTS as error:
            raise InputError(f"prompts.task: {self.name}: doc_to_text fails ({reason(error)})") from None
        if not isinstance(text, str):
            raise InputError(f"prompts.task: {self.name}: expected doc_to_text to give a text, got {text!r}")
        return {"prompt": text, "choices": choices}


def open_task(name: str, split: str | None) -> TaskDocuments:
    """The documents of a task: of `split`, or those for training, else for validation if there is a test split.

    `name`: a task of the harness, or a YAML file that describes one. Raises InputError if the harness is missing, there
    is no such task or split, or its data can't be loaded.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise InputError("prompts.task: needs lm-evaluation-harness; install nex-merge[eval]") from None
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    file = find_file(name) if name.endswith((".yaml", ".yml")) else None
    try:
        if file is not None and _is_group(file):
            raise InputError(
                f"prompts.task: {name}: is a group, which has no prompts of its own; name one of its tasks, or a file "
                "that describes one"
            )
        with hub_or_cache():
            tasks = TaskManager(include_defaults=file is None)
            if file is None:
                _check_name(name, tasks.all_subtasks, [*tasks.all_groups, *tasks.all_tags])
            found = tasks.load(name if file is None else str(file))["tasks"]
    except ConnectionError:
        raise InputError(
            f"prompts.task: {name}: the hub can't be reached, and the cache of `datasets` doesn't have the task's data"
        ) from None
    except _FAULTS as error:
        raise InputError(f"prompts.task: {name}: cannot be loaded ({reason(error)})") from None
    finally:
        logger.setLevel(level)
    if len(found) != 1:
        raise InputError(f"prompts.task: {name}: expected one task, got {', '.join(found)}; name one of them")
    [task] = found.values()
    return _documents(name, task, split)


def _is_group(file: Path) -> bool:
    """Whether a file describes a group of tasks, as the harness tells it. Its tags, such as !function, are not read."""
    with file.open("rb") as opened:
        content = yaml.compose(opened, yaml.SafeLoader)
    keys = [key.value for key, _ in content.value] if isinstance(content, yaml.MappingNode) else []
    return "group" in keys and "class" not in keys


def _check_name(name: str, tasks: Sequence[str], groups: Sequence[str]) -> None:
    if name in groups:
        members = [task for task in tasks if task.startswith(f"{name}_")][:3]
        such = f", such as {', '.join(members)}" if members else ""
        raise InputError(f"prompts.task: {name!r} is a group of tasks; name one of them{such}")
    if name not in tasks:
        missing = f" There is no file {name}." if Path(name).suffix else ""
        raise InputError(f"prompts.task: unknown task {name!r}.{missing}{_near(name, tasks)}")


def _near(name: str, tasks: Sequence[str]) -> str:
    return nearest(name, tasks).partition(" Known")[0]  # there are thousands


def _documents(name: str, task: Any, split: str | None) -> TaskDocuments:
    config, splits = task.config, list(task.dataset)
    reported = config.test_split or config.validation_split
    if split is None:
        split = config.training_split or (config.validation_split if config.test_split else None)
    if split is None or split not in splits:
        of = f"one of {', '.join(splits)}"
        got = "none, and the task has no split for training" if split is None else repr(split)
        raise InputError(f"prompts.split: {name}: expected {of}, got {got}")
    documents = task.dataset[split]
    try:
        documents = documents if config.process_docs is None else config.process_docs(documents)
    except _FAULTS as error:
        raise InputError(f"prompts.task: {name}: process_docs fails ({reason(error)})") from None
    return TaskDocuments(name, split, split == reported, documents, task)
