"""Model + prompts -> Responses: batched generation whose results do not depend on how the batches fall.

Sampling noise comes from (seed, prompt, sample, position), so every variant meets the same noise. Where two tokens are
so close that rounding in another batch could swap them, the step is decided by the response's own tokens alone, run
without batch, padding or cache. That guard holds in float32; in half precision, rounding is too coarse for it, and
results are reproducible for one `batch_tokens` on one kind of device with memory enough for it.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from nex_merge.errors import TrialError
from nex_merge.generation.batches import SLACK, Batch, takes_holes, worth_filling
from nex_merge.generation.drafts import Draft
from nex_merge.generation.sampling import Job
from nex_merge.records import Response
from nex_merge.setup.config import GenerationConfig

# What the keys and values of all responses under way may take, unless `batch_tokens` says how many tokens they are.
AUTO_BATCH_BYTES = 4 << 30
# What the buffers take besides: rows that joined late beside a longer one, and room to grow into.
BUFFER_SHARE = SLACK * 1.125

Progress = Callable[[int], None]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    progress: Progress = lambda tokens: None,
    references: Sequence[Response] = (),
) -> list[Response]:
    """One response per prompt and sample, ordered by prompt, then sample.

    `references`: other models' responses to the same prompts. They change no token (but see above for half precision);
    the more of them comes up again, the fewer passes it takes. `progress` is told how many tokens each step generated.
    Raises TrialError where one response alone is too large for the memory, or a logit is not finite.
    """
    jobs = [Job(i, k, tuple(ids)) for i, ids in enumerate(prompts) for k in range(config.samples)]
    # Longest first: the first batch is the widest, and neighbours need little padding.
    waiting = sorted(jobs, key=lambda job: -len(job.ids))
    chosen = config.batch_tokens
    budget = auto_batch_tokens(model.config, model.dtype.itemsize) if chosen == "auto" else chosen
    ends = end_tokens(model, tokenizer)
    tokens: dict[Job, list[int]] = {job: [] for job in jobs}
    others: dict[tuple[int, int], list[Sequence[int]]] = {}
    for reference in references:
        # That a response ends is its own to say, and nothing is read behind its end.
        said = [token for token in reference.token_ids if token not in ends]
        others.setdefault((reference.prompt, reference.sample), []).append(said)
    drafting = bool(others) and takes_holes(model)
    drafts: dict[Job, Draft] = {}
    most = len(jobs)
    failed: list[int] = []  # sizes of the batches that ran out of memory
    batch: Batch | None = None
    while waiting or batch is not None:
        running = [] if batch is None else batch.alive()
        widest = max(len(job.ids) for job in [*running, *waiting[:1]])
        size = min(most, max(1, budget // (widest + config.max_new_tokens)))
        fits = batch is None or (worth_filling(size, len(running)) and not batch.is_fixed)
        new = waiting[: size - len(running)] if fits else []
        try:
            if new:
                if drafting:
                    begun = {job: Draft(job.ids, others.get((job.prompt, job.sample), ())) for job in new}
                    drafts = {job: drafts[job] for job in running} | begun
                batch = _filled(batch, Batch.begin(model, new, tokens, config, ends))
                progress(len(new))
                waiting = waiting[len(new) :]
            assert batch is not None
            progress(batch.step(tokens, drafts, config, ends))
            batch = batch.packed(tokens, filling=bool(waiting))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
                raise
            tried = {*running, *new}
            if len(tried) <= 1:
                raise TrialError(
                    f"out of memory with a single response of up to {config.max_new_tokens} tokens; "
                    "lower generation.max_new_tokens"
                ) from error
            # Begun again in smaller batches: a response does not depend on when it is made.
            for job in tried:
                tokens[job] = []
            failed.append(len(tried))
            most, batch = len(tried) // 2, None
            waiting = sorted({*tried, *waiting}, key=lambda job: -len(job.ids))
    if failed:
        logging.getLogger(__name__).warning(
            "out of memory %d times; batches were reduced from %d responses to %d. "
            "Lower generation.batch_tokens to avoid the retries",
            len(failed),
            failed[0],
            most,
        )
    return [_response(job, tokens[job], tokenizer, ends) for job in jobs]


def _filled(batch: Batch | None, begun: Batch) -> Batch:
    # A function of its own, so that nothing refers to the begun batch, and its keys and values, once it has joined.
    return begun if batch is None else batch.joined(begun)


def auto_batch_tokens(config: PreTrainedConfig, itemsize: int) -> int:
    """How many tokens' keys and values, of `itemsize` bytes a number, fit AUTO_BATCH_BYTES."""
    return AUTO_BATCH_BYTES // token_bytes(config, itemsize)


def token_bytes(config: PreTrainedConfig, itemsize: int) -> int:
    """Bytes of the keys and values of one token, over all layers."""
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return 2 * text.num_hidden_layers * heads * head * itemsize


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end a response: the tokenizer's and those of the checkpoint's generation config."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in [*listed, tokenizer.eos_token_id] if isinstance(i, int))


def _response(job: Job, tokens: list[int], tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> Response:
    text = str(tokenizer.decode(tokens, skip_special_tokens=True))
    return Response(job.prompt, job.sample, job.ids, tuple(tokens), text, truncated=tokens[-1] not in ends)
