"""RESPONSES.jsonl -> questions, and given texts -> Responses as token ids. Knows files and tokenizers, no models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nex_merge.errors import InputError
from nex_merge.labels.benchmark import Item, check_match, labelled
from nex_merge.records import Prompt, Response
from nex_merge.setup.config import (
    ActivationsConfig,
    GenerationConfig,
    PromptsConfig,
    RuntimeConfig,
    Strict,
    find_file,
    merge_mappings,
    parse,
)
from nex_merge.setup.prompts import read_jsonl

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Greedy, all responses of a prompt are the same. As in the experiments of self-consistency (arXiv 2203.11171).
TEMPERATURE = 0.7


class SelectConfig(Strict):
    """What --set can change."""

    prompts: PromptsConfig
    generation: GenerationConfig
    activations: ActivationsConfig = ActivationsConfig()
    runtime: RuntimeConfig = RuntimeConfig()


@dataclass(frozen=True)
class Question:
    """One line: a prompt, the texts to choose among (none yet, where they are to be drawn), and its answer if known."""

    where: str  # for messages
    prompt: Prompt
    texts: tuple[str, ...]
    item: Item | None


def configure(
    file: str, samples: int | None, settings: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> SelectConfig:
    """The configuration that the command line asks for, beginning with the `defaults` that a model's family brings.

    Raises InputError where its parts contradict one another.
    """
    given = {key: value if isinstance(value, Mapping) else {} for key, value in settings.items()}
    if "file" in given.get("prompts", {}):
        raise InputError(f"--set prompts.file: the command's argument says it, found {file!r}; one of them would do")
    if "samples" in given.get("generation", {}):
        raise InputError("--set generation.samples: --samples N would do")
    if samples is None and "generation" in given:
        raise InputError("--set generation: nothing is drawn from given responses; --samples N draws them")
    own = {"prompts": {"file": file}, "generation": {"temperature": TEMPERATURE, "samples": samples or 1}}
    config = parse(SelectConfig, merge_mappings(merge_mappings(defaults or {}, own), settings), "--set")
    if config.generation.temperature == 0 and config.generation.samples > 1:
        raise InputError(
            f"generation.temperature: found 0, which gives {samples} times the same response; more, such as "
            f"{TEMPERATURE}, or --samples 1 would do"
        )
    return config


def read_questions(config: PromptsConfig, match: str, drawn: bool) -> list[Question]:
    """The questions of `config.file`. Raises InputError naming the line that lacks something or has too much."""
    check_match(match)
    path = find_file(config.file)
    if path is None or not path.is_file():
        raise InputError(
            f"RESPONSES: found no file {config.file!r}; JSONL with prompt or messages, and responses would do"
        )
    found = []
    for where, data, prompt in read_jsonl(path, config.column or "prompt"):
        texts = data.get("responses")
        if drawn and texts is not None:
            raise InputError(f"{where}: has responses, and --samples would draw others; one of them would do")
        if not drawn and not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
            told = "no responses" if texts is None else f"responses {str(texts)[:40]!r}"
            raise InputError(f'{where}: found {told}; "responses" with a list of texts, or --samples N, would do')
        if not all(_is_text(text) for text in texts or ()):
            raise InputError(f"{where}: a response holds half a surrogate pair, which is no text; UTF-8 text would do")
        item = labelled(where, data, prompt, match) if data.get("answer") is not None else None
        found.append(Question(where, prompt, tuple(texts or ()), item))
    if not found:
        raise InputError(f"RESPONSES: {path} holds no prompts")
    found = found[: config.limit]
    known = [question.item is not None for question in found]
    if any(known) and not all(known):
        lacking = found[known.index(False)]
        raise InputError(f"{lacking.where}: found no answer, while other lines have one; all of them or none would do")
    return found


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode_texts(
    questions: Sequence[Question],
    prompt_ids: Sequence[Sequence[int]],
    tokenizer: "PreTrainedTokenizerBase",
    context: int | None,
) -> list[Response]:
    """The given texts as responses, ordered by prompt, then as given.

    A text is what the model wrote after the prompt: it is tokenized by itself, and nothing is added, not even an end
    token, as nobody knows whether it was cut. An end token that it spells out is one, and no part of what it says.
    Raises InputError where prompt and text are longer than `context`.
    """
    responses = []
    for number, (question, ids) in enumerate(zip(questions, prompt_ids, strict=True)):
        for sample, text in enumerate(question.texts):
            tokens = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
            if context is not None and len(ids) + len(tokens) > context:
                raise InputError(
                    f"{question.where}: response {sample} has {len(tokens)} tokens; with the prompt of {len(ids)} that "
                    f"is beyond the model's context of {context}; a shorter one, or none, would do"
                )
            said = _without_end(text, tokenizer.all_special_tokens)
            responses.append(Response(number, sample, tuple(ids), tokens, said, truncated=False))
    return responses


def _without_end(text: str, special: Sequence[str]) -> str:
    ending = next((token for token in special if text.rstrip().endswith(token)), "")
    return text.rstrip().removesuffix(ending) if ending else text
