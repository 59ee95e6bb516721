"""Answers by hand in the run of a toy search."""

import json
from pathlib import Path

from nex_merge.runs.files import RESPONSES, SCORED
from nex_merge.runs.run import RunFolder
from tests.conftest import without_hashes


def reply(v: int, p: int) -> str:
    """Every third variant, from base on, says 8, the others 7; on the last prompt, none concludes anything."""
    return "no idea" if p == 3 else f"Let me see.\nSo it is {8 if v % 3 == 0 else 7}."


def answer_run(folder: Path, replies=reply) -> None:
    """Let the v-th variant (base, parents, merges) answer prompt p with replies(v, p)."""
    run = RunFolder(without_hashes(folder))
    for v, result in enumerate(result for result in run.results() if result.state in SCORED):
        path = run.folder(result.trial) / RESPONSES
        items = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [json.dumps({**item, "text": replies(v, item["prompt"]), "truncated": False}) for item in items]
        path.write_text("\n".join(lines) + "\n")
