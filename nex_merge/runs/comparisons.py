"""compare.json: the blind comparisons of a run, each of two of its trials, and what judges said of their answers.

It holds which answers were compared, in which order, and their hashes, so that a judgement of answers that are no
longer those of the run is known. Knows nothing of how a comparison is made, or of what it shows.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError
from nex_merge.records import Response
from nex_merge.runs import files

FIRST, SECOND, BOTH, NEITHER = "first", "second", "both", "neither"
WORDS = (FIRST, SECOND, BOTH, NEITHER)
_SCHEMA = 1
_WAIT = 60.0  # seconds for whoever else keeps a judgement


@dataclass(frozen=True)
class Judgement:
    """What one judge said of the two answers to one prompt."""

    prompt: int
    judge: str
    better: str  # first | second | both (are good) | neither (is)
    answers: str  # hash of the two answers that were judged


@dataclass(frozen=True)
class Comparison:
    """Two trials, the prompts on which they differ, and what was said of these."""

    between: tuple[str, str]  # merges before parents before base, so that two trials have one comparison
    seed: int  # of the order and the sides
    match: str | None  # how conclusions are read where these tell whether two answers differ; None: whole texts do
    prompts: int  # how many both have answered
    order: tuple[int, ...]  # those on which the two differ, in random order
    answers: Mapping[int, str]  # of these: hash of the two answers
    judgements: tuple[Judgement, ...] = field(default=())

    @property
    def id(self) -> str:
        """What a page and a sheet are known by when they come back: the same answers in the same order."""
        content = [self.between, self.seed, [(prompt, self.answers[prompt]) for prompt in self.order]]
        # The letter in front keeps spreadsheets from reading a number in it.
        return f"c{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:11]}"

    def with_judgements(self, *new: Judgement) -> "Comparison":
        """With these, which replace what the same judges said of the same prompts."""
        by_place = {(one.prompt, one.judge): one for one in (*self.judgements, *new)}
        return replace(self, judgements=tuple(by_place.values()))

    def without(self, prompt: int, judge: str) -> "Comparison":
        """Without what a judge said of a prompt."""
        kept = (one for one in self.judgements if (one.prompt, one.judge) != (prompt, judge))
        return replace(self, judgements=tuple(kept))


def hash_of(first: Response, second: Response) -> str:
    """Of the texts of two answers."""
    return hashlib.sha256(json.dumps([first.text, second.text]).encode()).hexdigest()[:16]


def first_samples(responses: "list[Response]") -> dict[int, Response]:
    """By prompt, the first response: what is compared where prompts were answered several times."""
    found: dict[int, Response] = {}
    for response in responses:
        if response.sample == 0:
            found[response.prompt] = response
    return found


def read_comparisons(run: Path) -> list[Comparison]:
    """The comparisons of a run, in the order in which they were begun. Raises InputError if the file is damaged."""
    path = run / files.COMPARISONS
    if not path.is_file():
        return []
    content = files.read_json(path, _RESTORE)
    if content.get("schema") != _SCHEMA:
        raise InputError(f"{path}: expected schema {_SCHEMA}, got {content.get('schema')!r}: upgrade to read it")
    try:
        return [_comparison(item) for item in content["comparisons"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{path}: is damaged. {_RESTORE}") from None


_RESTORE = "Restore it from a copy of the run, or remove it: what was judged is then lost"


def _comparison(item: Mapping[str, Any]) -> Comparison:
    first, second = item["between"]
    judgements = tuple(
        Judgement(int(one["prompt"]), str(one["judge"]), _word(one["better"]), str(one["answers"]))
        for one in item["judgements"]
    )
    answers = {int(prompt): str(digest) for prompt, digest in item["answers"].items()}
    order = tuple(int(prompt) for prompt in item["order"])
    if {*order} != {*answers} or len(order) != len(answers):
        raise ValueError("order")
    match = None if item["match"] is None else str(item["match"])
    between = str(first), str(second)
    return Comparison(between, int(item["seed"]), match, int(item["prompts"]), order, answers, judgements)


def _word(word: Any) -> str:
    if word not in WORDS:
        raise ValueError(word)
    return word


def keep(run: Path, between: tuple[str, str], change: Callable[[Comparison | None], Comparison]) -> Comparison:
    """Change the comparison of two trials; `change` is given the one there is. Returns the new one, which is on disk.

    Raises InputError if the folder can't be written or the file is damaged.
    """
    from nex_merge.runs.custody import locked

    with locked(run, files.COMPARISONS_LOCK, "another command is keeping judgements", wait=_WAIT):
        known = {one.between: one for one in read_comparisons(run)}
        changed = change(known.get(between))
        known[between] = changed
        content = {"schema": _SCHEMA, "comparisons": [dataclasses.asdict(one) for one in known.values()]}
        files.write_atomically(run / files.COMPARISONS, json.dumps(content, indent=1))
    return changed
