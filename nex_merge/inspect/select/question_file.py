"""The input of `nex-merge select`: questions from a JSONL file, and given texts as responses. Knows no models."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nex_merge.answer_files.endings import Endings, read_cut
from nex_merge.answers.conclusions import check_match
from nex_merge.errors import InputError
from nex_merge.inspect.models import ModelConfig, configure
from nex_merge.labels.items import Item, labelled, unlike
from nex_merge.records import Prompt, Response
from nex_merge.setup.config import PromptsConfig, find_file
from nex_merge.setup.paths import check_readable
from nex_merge.setup.row_prompts import prompt_of
from nex_merge.setup.textfiles import check_unicode, collect, read_jsonl
from nex_merge.wording import counted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Default for sampling, as in the experiments on self-consistency (arXiv 2203.11171).
TEMPERATURE = 0.7


@dataclass(frozen=True)
class Question:
    """One line of the file: a prompt, its candidates (none if they are to be sampled), and the answer if known."""

    where: str  # file and line, for messages
    prompt: Prompt
    texts: tuple[str, ...]
    item: Item | None
    cut: tuple[bool, ...]  # whether each candidate was cut off


def read_settings(
    file: str, samples: int | None, settings: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> ModelConfig:
    """The configuration from a family's `defaults`, the command's options and `settings`; later entries win.

    Raises InputError if they contradict each other.
    """
    given = {key: value if isinstance(value, Mapping) else {} for key, value in settings.items()}
    if "file" in given.get("prompts", {}):
        raise InputError(f"--set prompts.file: not allowed, because the argument RESPONSES sets it ({file})")
    if "samples" in given.get("generation", {}):
        raise InputError("--set generation.samples: not allowed; use --samples N")
    if samples is None and "generation" in given:
        raise InputError("--set generation: requires --samples N, because responses in the file are not generated")
    options = {"prompts": {"file": file}, "generation": {"temperature": TEMPERATURE, "samples": samples or 1}}
    config = configure(defaults or {}, options, settings)
    if config.generation.temperature == 0 and config.generation.samples > 1:
        raise InputError(
            f"generation.temperature: expected a positive number, got 0: all {samples} samples would be equal. Use "
            f"{TEMPERATURE}, for example, or --samples 1"
        )
    return config


def read_questions(
    config: PromptsConfig, match: str, sampled: bool, log: Callable[[str], None] | None = None
) -> list[Question]:
    """The questions in `config.file`; `sampled`: without responses. Raises InputError naming the line at fault.

    `log` is told what is doubtful about them.
    """
    check_match(match)
    endings = Endings()
    path = find_file(config.file or "") or Path(config.file or "")
    check_readable(path, "RESPONSES", "a JSONL file with prompt or messages, and responses")

    def read(where: str, data: Mapping[str, Any]) -> Question:
        prompt = prompt_of(data, where, config.column, "--set prompts.column")
        texts = data.get("responses")
        if sampled and texts is not None:
            raise InputError(f"{where}: expected no responses, because --samples generates them")
        if not sampled and not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
            got = "none" if texts is None else repr(str(texts)[:40])
            raise InputError(
                f'{where}: expected "responses" with a list of texts, got {got}. To generate them, use --samples N'
            )
        for number, text in enumerate(texts or ()):
            check_unicode(text, f"{where}: responses.{number}")
        item = labelled(where, data, prompt, match) if data.get("answer") is not None else None
        cut = read_cut(data, where, len(texts), endings) if texts else ()
        return Question(where, prompt, tuple(texts or ()), item, cut)

    found = collect(itertools.islice(read_jsonl(path), config.limit), read)
    if not found:
        raise InputError(f"RESPONSES: expected at least one prompt, got none in {path}")
    answers = [question.item.answer for question in found if question.item is not None]
    if 0 < len(answers) < len(found):
        lacking = next(question for question in found if question.item is None)
        raise InputError(f"{lacking.where}: expected an answer, because other lines have one, got none")
    if log is not None:
        for line in (*endings.notes(str(path)), *unlike(answers, match)):
            log(line)
    return found


def encode_texts(
    questions: Sequence[Question],
    prompt_ids: Sequence[Sequence[int]],
    tokenizer: "PreTrainedTokenizerBase",
    context: int | None,
) -> list[Response]:
    """The given texts as responses, ordered by prompt, then as given.

    A text is tokenized as it is, without adding an end token, because it may have been truncated. An end token spelled
    out in it is encoded as such and removed from the text. Raises InputError if prompt and text exceed `context`.
    """
    responses = []
    for number, (question, ids) in enumerate(zip(questions, prompt_ids, strict=True)):
        for sample, text in enumerate(question.texts):
            tokens = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
            if context is not None and len(ids) + len(tokens) > context:
                raise InputError(
                    f"{question.where}: response {sample}: expected at most {counted(context - len(ids), 'token')}, "
                    f"got {len(tokens)}: the prompt has {counted(len(ids), 'token')} and the model's context is "
                    f"{context}"
                )
            visible = _without_end(text, tokenizer.all_special_tokens)
            responses.append(Response(number, sample, tuple(ids), tokens, visible, question.cut[sample]))
    return responses


def _without_end(text: str, special: Sequence[str]) -> str:
    ending = next((token for token in special if text.rstrip().endswith(token)), "")
    return text.rstrip().removesuffix(ending) if ending else text
