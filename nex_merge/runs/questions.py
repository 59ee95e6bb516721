"""What a run knows of its prompts: the options of multiple-choice questions, and the labels of an audit."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError
from nex_merge.records import Questions
from nex_merge.runs import files


def read_questions(run: Path, resolved: Mapping[str, Any], audited: bool = True) -> Questions:
    """The questions of a run. `audited` False: without the labels of an audit, as a search sees them."""
    options = {int(prompt): int(count) for prompt, count in (resolved.get("options") or {}).items()}
    labels = read_labels(run) if audited else {}
    return Questions(options, labels)


def read_labels(run: Path) -> dict[int, str | None]:
    """The right conclusions that an audit found, by prompt; None where no conclusion is right."""
    path = run / files.AUDIT
    if not path.is_file():
        return {}
    item = files.read_json(path)
    try:
        return {int(label["prompt"]): label["conclusion"] for label in item["labels"]}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: is damaged. Remove the file, and run the audit again") from None


def write_labels(run: Path, match: str, labels: Mapping[int, str | None], drawn: Sequence[int]) -> None:
    """Keep an audit: the prompts in the order in which they were drawn, and what is right of those that were judged."""
    content = {
        "schema": 1,
        "match": match,
        "drawn": list(drawn),
        "labels": [{"prompt": prompt, "conclusion": labels[prompt]} for prompt in drawn if prompt in labels],
    }
    files.write_atomically(run / files.AUDIT, json.dumps(content, indent=1))
