"""Labels of an audit that were written down elsewhere: JSONL or CSV -> the right conclusions."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nex_merge.answers.conclusions import Key
from nex_merge.errors import InputError
from nex_merge.labels.audit import containing, truth_of
from nex_merge.measures.measure import Pool
from nex_merge.setup import textfiles
from nex_merge.setup.paths import check_readable
from nex_merge.setup.strict import is_number
from nex_merge.setup.yaml_files import as_yaml

_FORMATS = ".jsonl or .csv"


def read_truths(path: Path, pool: Pool, texts: Sequence[str] | None) -> tuple[dict[int, Key | None], dict[int, str]]:
    """The right conclusions by prompt, of the lines of a file with `index` or `prompt`, and `answer`.

    Also, by prompt, the answers that are no variant's conclusion but stand inside one, as "paris" does in "the capital
    is paris": whether those are right can't be told by equal conclusions, so they are among neither.

    `texts`: what the prompts say; None: not known, so that lines have to give the index. Raises InputError, naming the
    line, for one that names no prompt of the run, or several, or contradicts another, and for an answer that can't be
    read.
    """
    check_readable(path, "--labels", f"a file of type {_FORMATS}")
    kind = textfiles.file_type(path)
    if kind not in (".jsonl", ".csv"):
        raise InputError(f"--labels: expected a file of type {_FORMATS}, got {path}")
    rows: Iterator[tuple[str, Any]] = (
        textfiles.read_jsonl(path) if kind == ".jsonl" else textfiles.read_csv(path, "answer")
    )
    answers: dict[int, tuple[str, str]] = {}  # by prompt: place, answer
    truths: dict[int, Key | None] = {}
    inside: dict[int, str] = {}

    def read(where: str, row: Mapping[str, Any]) -> None:
        _check_keys(row, where)
        prompt, answer = _prompt(row, where, pool.prompts, texts), _answer(row, where)
        earlier = answers.setdefault(prompt, (where, answer))
        if earlier[1].strip() != answer.strip():
            raise InputError(
                f"{where}: prompt {prompt} has the answer {answer!r} here and {earlier[1]!r} in {earlier[0]}; keep "
                "one of them"
            )
        try:
            truth = truth_of(pool, prompt, answer)
        except ValueError as error:
            raise InputError(
                f"{where}: answer {answer!r} cannot be read as {pool.match}: {error}. Where no variant is right, leave "
                "it empty"
            ) from None
        if truth is not None and (whole := containing(pool, prompt, truth)) is not None:
            inside[prompt] = f"{truth!s} in {whole!s}"
        else:
            truths[prompt] = truth

    textfiles.collect(rows, read)
    if not answers:
        raise InputError(f"--labels: {path} holds no labels")
    return truths, inside


def _check_keys(row: Mapping[str, Any], where: str) -> None:
    if "answer" not in row:
        raise InputError(f'{where}: expected "answer", got the keys {", ".join(row)}')
    if "index" not in row and "prompt" not in row:
        raise InputError(
            f'{where}: expected "index", the number of a prompt in the run counted from 0, or "prompt", its text; '
            f"got the keys {', '.join(row)}"
        )


def _prompt(row: Mapping[str, Any], where: str, prompts: int, texts: Sequence[str] | None) -> int:
    """The prompt that a line names, by its index where it has one."""
    text = row.get("prompt")
    if "index" in row:
        given = row["index"]
        written = given.strip() if isinstance(given, str) else ""
        index = int(written) if written.isdecimal() and len(written) < 20 else given
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < prompts:
            raise InputError(f"{where}: index: expected 0 to {prompts - 1}, a prompt of the run, got {as_yaml(given)}")
        if isinstance(text, str) and texts is not None and text.strip() != texts[index].strip():
            raise InputError(
                f"{where}: prompt {index} of the run is {_short(texts[index])}, got {_short(text)}. Correct the index, "
                "or leave one of the two out"
            )
        return index
    if not isinstance(text, str):
        raise InputError(f"{where}: prompt: expected text, got {as_yaml(text)}")
    if texts is None:
        raise InputError(
            f"{where}: the prompts can't be told by their text, because their file has changed since the run was "
            'started. Give "index" instead, the number of a prompt in responses.jsonl'
        )
    same = [i for i, known in enumerate(texts[:prompts]) if known.strip() == text.strip()]
    if not same:
        raise InputError(f"{where}: expected a prompt of the run, got {_short(text)}")
    if len(same) > 1:
        raise InputError(
            f'{where}: prompts {", ".join(map(str, same))} of the run are all {_short(text)}. Give "index" instead'
        )
    return same[0]


def _answer(row: Mapping[str, Any], where: str) -> str:
    """The answer as text; empty: none of the pool's conclusions is right."""
    answer = row["answer"]
    if answer is None:
        return ""
    if is_number(answer):
        return str(answer)
    if not isinstance(answer, str):
        raise InputError(
            f"{where}: answer: expected text or a number, empty where no variant is right, got {as_yaml(answer)}"
        )
    textfiles.check_text(answer, f"{where}: answer")
    return answer


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 60 else f"{flat[:60]}...")
