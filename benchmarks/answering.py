"""Generation against static batches; capture against generation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, StoppingCriteria, StoppingCriteriaList
from transformers import GenerationConfig as PlainConfig

from benchmarks.measured import Comparison, PeakMemory, alternating, timed
from benchmarks.shapes import make_family
from nex_merge.activations.capture import capture
from nex_merge.engines.loading import load_tokenizer
from nex_merge.generation import batches, generate
from nex_merge.records import Response
from nex_merge.setup.config import ActivationsConfig, GenerationConfig
from nex_merge.threads import on_cores

END = 2  # the tiny tokenizer's end token


class _EndAt(StoppingCriteria):
    """Ends every row of a static batch at its own length."""

    def __init__(self, prompt: int, lengths: torch.Tensor) -> None:
        self.prompt, self.lengths = prompt, lengths

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:  # type: ignore[override]
        return self.lengths <= input_ids.shape[1] - self.prompt


def mixed_lengths(model_folder: Path, what: str, prompts: int, places: int, short: int, runs: int) -> Comparison:
    """A tenth of the responses are 8 times longer; both sides have as many places and end every response alike."""
    model: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = END
    tokenizer = load_tokenizer(model_folder)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 100, (prompts, 24), generator=generator)
    lengths = torch.full((prompts,), short)
    lengths[torch.randperm(prompts, generator=generator)[: prompts // 10]] = 8 * short
    config = GenerationConfig(max_new_tokens=8 * short, batch_tokens=places * (24 + 8 * short))
    chosen = batches.choose_all

    def ending(model, logits, rows, drafts, done, config):  # type: ignore[no-untyped-def]
        """The tool's own choice, but END where a response has its length, and never before."""
        found = chosen(model, logits, rows, drafts, done, config)
        for i, job in enumerate(rows):
            if job is not None and len(done[job]) + 1 == lengths[job.prompt]:
                found[i] = [END]
            elif found[i] == [END]:
                found[i] = [END + 8]
        return found

    def static() -> None:
        for start in range(0, prompts, places):
            part = ids[start : start + places]
            model.generate(
                part, attention_mask=torch.ones_like(part), max_new_tokens=8 * short, do_sample=False,
                suppress_tokens=[END], pad_token_id=0,
                stopping_criteria=StoppingCriteriaList([_EndAt(24, lengths[start : start + places])]),
            )  # fmt: skip

    def ours() -> list[Response]:
        batches.choose_all = ending
        try:
            return generate(model, tokenizer, ids.tolist(), config)
        finally:
            batches.choose_all = chosen

    found = alternating(what, "static batches of the same size", static, ours, "2x", runs)
    made = [len(response.token_ids) for response in ours()]
    assert made == lengths.tolist(), "the responses have the lengths that were asked for"
    tokens = int(lengths.sum())
    found.notes = {"tokens": tokens, "our_tokens_per_second": tokens / sorted(found.ours)[len(found.ours) // 2]}
    return found


def continuous(model_folder: Path, what: str, prompts: int, tokens: int, runs: int) -> Comparison:
    """transformers' continuous batching over paged attention, which runs on the CPU too, on the same greedy answers."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(model_folder)
    ids = torch.randint(10, 60, (prompts, 24), generator=torch.Generator().manual_seed(0)).tolist()
    end = model.generation_config.eos_token_id
    theirs = PlainConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=end, pad_token_id=0)
    answers: dict[str, list[list[int]]] = {}

    def paged() -> None:
        found = model.generate_batch(inputs=ids, generation_config=theirs, progress_bar=False)
        answers["theirs"] = [list(output.generated_tokens) for output in found.values()]

    def ours() -> None:
        found = generate(model, tokenizer, ids, GenerationConfig(max_new_tokens=tokens))
        answers["ours"] = [list(response.token_ids) for response in found]

    compared = alternating(what, "generate_batch of transformers", paged, ours, "-", runs)
    same = [a == b for a, b in zip(answers["theirs"], answers["ours"], strict=True)]
    compared.notes = {"tokens": sum(map(len, answers["ours"])), "answers": prompts, "same_answers": sum(same)}
    return compared


def _read(model: PreTrainedModel) -> Callable[[Response], None]:
    """The forward pass that capture hooks into, alone."""

    def read(response: Response) -> None:
        with torch.inference_mode():
            model.model(input_ids=torch.tensor([[*response.prompt_ids, *response.token_ids]]), use_cache=False)

    return read


def capturing(root: Path, runs: int, prompts: int = 8, tokens: int = 128) -> Comparison:
    """Capture against the generation of the same tokens, at the 0.6B shape."""
    folders = make_family("0.6B", root)
    model = AutoModelForCausalLM.from_pretrained(folders["a"], dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    tokenizer = load_tokenizer(folders["a"])
    ids = torch.randint(10, 100, (prompts, 24), generator=torch.Generator().manual_seed(0)).tolist()
    config = GenerationConfig(max_new_tokens=tokens)
    found = Comparison(f"capture, {prompts} x {tokens} tokens, 0.6B", "generating them", [], [], "at most 20 %")
    before: Sequence[Response] = []
    for _ in range(runs):
        seconds, before = timed(lambda: generate(model, tokenizer, ids, config))
        found.baseline.append(seconds)
        with PeakMemory() as peak:
            found.ours.append(timed(lambda responses=before: capture(model, responses, ActivationsConfig()))[0])
        found.notes["memory_of_capture_bytes"] = peak.own - peak.before
        with PeakMemory() as peak:
            for _ in on_cores(_read(model), before):
                pass
        found.notes["memory_of_reading_alone_bytes"] = peak.own - peak.before
    found.notes["share_of_generation"] = 1 / found.ratio
    return found
