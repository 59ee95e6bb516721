"""Model + prompts -> Responses: batched generation whose results do not depend on how responses are batched.

Sampling noise is a function of (seed, prompt, sample, position), so every variant gets the same noise. If two tokens
are so close that rounding in another batch could swap them, the choice is made by a forward pass over that response
alone, without padding or cache. This guard holds in float32. In half precision, rounding is too coarse for it: results
are reproducible for a fixed `batch_tokens` on one kind of device that does not run out of memory.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from nex_merge.errors import TrialError
from nex_merge.generation.batches import SLACK, Batch, should_refill, supports_masked_gaps
from nex_merge.generation.buffers import buffers_of, let_go, wants_fixed_shapes
from nex_merge.generation.drafts import Draft
from nex_merge.generation.fixed import FixedBatch
from nex_merge.generation.rotary import boundaries, check_sides, side
from nex_merge.generation.sampling import Job
from nex_merge.records import Response
from nex_merge.setup.config import GenerationConfig
from nex_merge.wording import counted

# Memory for the keys and values of all running responses with `batch_tokens: auto`, in bytes.
AUTO_BATCH_BYTES = 4 << 30
# Factor of the buffers on top: padding of rows that joined a longer one, and room to grow.
BUFFER_SHARE = SLACK * 1.125

Progress = Callable[[int], None]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    progress: Progress = lambda tokens: None,
    references: Sequence[Response] = (),
    only: Collection[int] | None = None,
) -> list[Response]:
    """One response per prompt and sample, ordered by prompt, then sample.

    `prompts`: token ids. `progress` is called with the number of tokens that each step generated. `references`: other
    models' responses to the same prompts, used as drafts for speculative decoding. They change no token (see above for
    half precision), and save forward passes in proportion to their acceptance. `only`: answer these of the prompts,
    with the tokens that they get among all of them.

    Raises InputError if a response could cross a boundary of the rotary frequencies (see `rotary`), TrialError if a
    single response does not fit into memory, or a logit is not finite. If a batch does not fit, its responses are
    generated again in smaller batches, and one warning is logged.
    """
    check_sides(model.config, prompts, config.max_new_tokens)
    wanted = range(len(prompts)) if only is None else sorted(only)
    sides: dict[int, list[int]] = {}
    for i in wanted:
        sides.setdefault(side(boundaries(model.config), len(prompts[i])), []).append(i)
    if len(sides) > 1:
        parts = [generate(model, tokenizer, prompts, config, progress, references, few) for few in sides.values()]
        return sorted((response for part in parts for response in part), key=lambda one: (one.prompt, one.sample))
    jobs = [Job(i, k, tuple(prompts[i])) for i in wanted for k in range(config.samples)]
    # Longest first: memory runs out at the beginning if at all, and neighbours need little padding.
    waiting = sorted(jobs, key=lambda job: -len(job.ids))
    budget = batch_tokens(config, model.config, model.dtype.itemsize)
    ends = end_tokens(model, tokenizer)
    tokens: dict[Job, list[int]] = {job: [] for job in jobs}
    texts: dict[tuple[int, int], list[Sequence[int]]] = {}
    for reference in references:
        # End tokens are never drafted: a draft continues past them to no use.
        text = [token for token in reference.token_ids if token not in ends]
        texts.setdefault((reference.prompt, reference.sample), []).append(text)
    drafting = bool(texts) and supports_masked_gaps(model)
    drafts: dict[Job, Draft] = {}
    max_size = len(jobs)
    failed: list[int] = []  # sizes of the batches that ran out of memory
    batch: Batch | FixedBatch | None = None
    fixed = wants_fixed_shapes(model)
    while waiting or batch is not None:
        running = [] if batch is None else batch.running()
        widest = max(len(job.ids) for job in [*running, *waiting[:1]])
        size = min(max_size, max(1, budget // (widest + config.max_new_tokens)))
        fits = batch is None or (should_refill(size, len(running)) and not batch.is_fixed)
        new = waiting[: size - len(running)] if fits else []
        try:
            if new:
                if drafting:
                    added = {job: Draft(job.ids, texts.get((job.prompt, job.sample), ())) for job in new}
                    drafts = {job: drafts[job] for job in running} | added
                if fixed and batch is None:
                    max_size = size
                    batch = FixedBatch(model, buffers_of(model, size, widest + config.max_new_tokens))
                batch = _join(batch, Batch.begin(model, new, tokens, config, ends), tokens)
                progress(len(new))
                waiting = waiting[len(new) :]
            assert batch is not None
            progress(batch.step(tokens, drafts, config, ends))
            batch = batch.packed(tokens, refilling=bool(waiting))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
                raise
            tried = {*running, *new}
            if len(tried) <= 1:
                raise TrialError(
                    f"out of memory with a single response of up to {counted(config.max_new_tokens, 'token')}; "
                    "lower generation.max_new_tokens (--set generation.max_new_tokens=N)"
                ) from error
            # Start over in smaller batches; the responses will be the same.
            for job in tried:
                tokens[job] = []
            failed.append(len(tried))
            max_size, batch = len(tried) // 2, None
            let_go(model)
            waiting = sorted({*tried, *waiting}, key=lambda job: -len(job.ids))
    if failed:
        logging.getLogger(__name__).warning(
            "out of memory %d times; batches were reduced from %d responses to %d. "
            "Lower generation.batch_tokens to avoid the retries",
            len(failed),
            failed[0],
            max_size,
        )
    return [_response(job, tokens[job], tokenizer, ends) for job in jobs]


def _join(batch: Batch | FixedBatch | None, new: Batch, tokens: Mapping[Job, Sequence[int]]) -> Batch | FixedBatch:
    # A function, so that no variable keeps the new batch's keys and values alive once it has joined.
    return new if batch is None else batch.joined(new, tokens)


def batch_tokens(config: GenerationConfig, model: PreTrainedConfig, itemsize: int) -> int:
    """How many tokens a batch has room for: as many as were asked for, or as AUTO_BATCH_BYTES have.

    `itemsize`: bytes of an element of keys and values.
    """
    return AUTO_BATCH_BYTES // token_bytes(model, itemsize) if config.batch_tokens == "auto" else config.batch_tokens


def token_bytes(config: PreTrainedConfig, itemsize: int) -> int:
    """Bytes of the keys and values of one token in all layers, with `itemsize` bytes per element."""
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return 2 * text.num_hidden_layers * heads * head * itemsize


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """End-of-sequence tokens: the tokenizer's and those of the model's generation config."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in [*listed, tokenizer.eos_token_id] if isinstance(i, int))


def _response(job: Job, tokens: list[int], tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> Response:
    text = str(tokenizer.decode(tokens, skip_special_tokens=True))
    return Response(job.prompt, job.sample, job.ids, tuple(tokens), text, truncated=tokens[-1] not in ends)
