"""What a run knows of its prompts: their text, the options of multiple-choice questions, and the labels of an audit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError
from nex_merge.records import Prompt, Questions
from nex_merge.runs import files
from nex_merge.setup.config import PromptsConfig
from nex_merge.setup.prompts import load


@dataclass(frozen=True)
class AuditLabels:
    """What a person said of a few prompts."""

    match: str  # how the conclusions were read
    drawn: tuple[int, ...]  # prompts in the order in which they were drawn, also those without a label
    by_prompt: Mapping[int, str | None]  # the right conclusion; None: of all that variants conclude, none is right


def read_questions(run: Path, resolved: Mapping[str, Any], audited: bool = True) -> Questions:
    """The questions of a run. `audited` False: without the labels of an audit, as a search sees them."""
    options = {int(prompt): int(count) for prompt, count in (resolved.get("options") or {}).items()}
    labels = read_labels(run) if audited else None
    return Questions(options) if labels is None else Questions(options, labels.by_prompt, labels.match)


def read_labels(run: Path) -> AuditLabels | None:
    """The labels of an audit; None if there was none."""
    path = run / files.AUDIT
    if not path.is_file():
        return None
    item = files.read_json(path)
    try:
        labels = {int(label["prompt"]): label["conclusion"] for label in item["labels"]}
        return AuditLabels(str(item["match"]), tuple(int(prompt) for prompt in item["drawn"]), labels)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: is damaged. Remove the file, and run the audit again") from None


def write_labels(run: Path, labels: AuditLabels) -> None:
    """Keep the labels of an audit, in the order of drawing."""
    content = {
        "schema": 1,
        "match": labels.match,
        "drawn": list(labels.drawn),
        "labels": [
            {"prompt": prompt, "conclusion": labels.by_prompt[prompt]}
            for prompt in labels.drawn
            if prompt in labels.by_prompt
        ],
    }
    files.write_atomically(run / files.AUDIT, json.dumps(content, indent=1))


def read_prompts(resolved: Mapping[str, Any], config: PromptsConfig) -> tuple[Prompt, ...] | None:
    """The prompts of a run; None if they are no longer those that the run was started with, or can't be read."""
    try:
        loaded = load(config)
        return loaded.prompts if loaded.sha256() == resolved.get("prompts_sha256") else None
    except (InputError, OSError):
        return None
