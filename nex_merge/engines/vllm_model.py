"""A model inside vLLM: built for one config, its weights replaced in place, asked for tokens and for logits.

Everything that is called of vLLM is called here, but for what its own process calls back (`vllm_drafts.py`,
`vllm_sampling.py`). vLLM runs in this process, so that weights are handed over as tensors.
"""

# pyright: reportMissingImports=false

import copy
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from nex_merge import interrupts
from nex_merge.engines import vllm_drafts
from nex_merge.engines.quiet import quietly
from nex_merge.errors import InputError, RunError

# Read by vLLM from when it is imported. In a process of its own it would take weights as pickles alone.
_HERE = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
# Unless the user says otherwise: it reports nothing home, and errors alone to the terminal.
_DEFAULTS = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
# Responses in one batch at most; vLLM's own default.
MOST_SEQUENCES = 256


@dataclass(frozen=True)
class Size:
    """What a model is built for: changing one of them takes building it again."""

    length: int  # tokens of a prompt and its response at most
    tokens: int  # that keys and values have room for
    bytes: int  # of the keys and values of one token
    is_sampling: bool  # vLLM has either processors of logits, which sampling takes, or drafts

    def has_room_for(self, other: "Size") -> bool:
        """Whether what was built for this does for `other`."""
        return self.length >= other.length and self.tokens >= other.tokens and self.is_sampling >= other.is_sampling


@dataclass(frozen=True)
class Request:
    """What to continue, and by how many tokens at most."""

    ids: tuple[int, ...]
    tokens: int
    row: int | None = None  # number of the response in `vllm_sampling`; None: the choice is greedy


@dataclass
class Continued:
    """What a request was continued by."""

    token_ids: list[int] = field(default_factory=list)  # with the end token, if there was one
    # Of every token, the largest logit and its distance to the second, nan where one is not finite; greedy requests.
    largest: list[float] = field(default_factory=list)
    leads: list[float] = field(default_factory=list)


class VllmModel:
    """A model of vLLM's, with weights that are replaced as a whole.

    vLLM has room for one in a process: to make another closes it.
    """

    _present: ClassVar["VllmModel | None"] = None

    def __init__(self, model: PreTrainedModel, size: Size) -> None:
        """A model of the same kind as `model`, in its dtype, with arbitrary weights.

        Raises InputError if vLLM doesn't know the architecture, runs on another device, or has no room.
        """
        if VllmModel._present is not None:
            VllmModel._present.close()
        self.size, self.is_closed = size, False
        self._llm: Any = _built(model, size)
        VllmModel._present = self

    def close(self) -> None:
        """Give back the memory."""
        if not self.is_closed:
            self._llm.llm_engine.engine_core.shutdown()
            self.is_closed, self._llm, VllmModel._present = True, None, None

    def replace_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Copy weights over the present ones; under their names in a checkpoint, with the output layer's own."""
        self._llm.collective_rpc(lambda worker: worker.reload_weights(weights_iterator=iter(weights)))

    def unlike(self, weights: Iterable[tuple[str, torch.Tensor]]) -> list[str]:
        """The tensors that vLLM keeps as they were given, such as norms and embeddings, and that have other values."""

        def look(worker: Any) -> list[str]:
            own = dict(worker.get_model().named_parameters())
            kept = [(name, weight, own[name]) for name, weight in weights if name in own]
            # Of embeddings, vLLM may add rows; what it has packed has another shape.
            return [
                name
                for name, weight, found in kept
                if found.shape[1:] == weight.shape[1:]
                and len(found) >= len(weight)
                and not torch.equal(found[: len(weight)].data, weight.data)
            ]

        return self._llm.collective_rpc(look)[0]

    def forget_prefixes(self) -> None:
        """Drop keys and values of earlier requests. Raises RunError if vLLM doesn't."""
        if not self._llm.reset_prefix_cache():
            raise RunError(
                "vLLM did not reset its prefix cache, so that answers could come from keys and values of earlier "
                "weights. That should not happen while no response is under way; resume the search, which starts "
                "vLLM anew"
            )

    def next_logits(self, ids: Sequence[int]) -> np.ndarray:
        """The logit that every token but the first has after those before it, float32 [tokens - 1]."""
        from vllm import SamplingParams

        params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        self._add("probe", ids, params)
        (output,) = (done for done in self._steps() if done.finished)
        return np.array(
            [places[token].logprob for token, places in zip(ids[1:], output.prompt_logprobs[1:], strict=True)],
            np.float32,
        )

    def continued(
        self, requests: Mapping[str, Request], ends: Sequence[int], notify: Callable[[int], None]
    ) -> dict[str, Continued]:
        """What requests are continued by, up to an end token; `notify` is told the number of tokens of each step."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        found = {name: Continued() for name in requests}
        for name, request in requests.items():
            given: dict[str, Any] = {"logprobs": 2} if request.row is None else {"extra_args": _row(request.row)}
            params = SamplingParams(
                temperature=0, max_tokens=request.tokens, stop_token_ids=list(ends), ignore_eos=True,
                detokenize=False, output_kind=RequestOutputKind.DELTA, **given,
            )  # fmt: skip
            self._add(name, request.ids, params)
        for output in self._steps():
            new, one = output.outputs[0], found[output.request_id]
            one.token_ids += new.token_ids
            for places in new.logprobs or ():
                logits = [place.logprob for place in places.values()]
                first, second = sorted(logits, reverse=True)[:2]
                one.largest.append(math.nan if any(map(math.isnan, logits)) else first)
                one.leads.append(first - second)
            notify(len(new.token_ids))
        return found

    def _add(self, name: str, ids: Sequence[int], params: Any) -> None:
        from vllm import TokensPrompt

        self._llm.llm_engine.add_request(name, TokensPrompt(prompt_token_ids=list(ids)), params)

    def _steps(self) -> Iterator[Any]:
        engine = self._llm.llm_engine
        while engine.has_unfinished_requests():
            interrupts.check()
            yield from engine.step()


def _row(number: int) -> dict[str, int]:
    from nex_merge.engines.vllm_sampling import ROW

    return {ROW: number}


def _built(model: PreTrainedModel, size: Size) -> Any:
    device = model.device.type
    with _as_it_was(), tempfile.TemporaryDirectory(prefix="nex-merge-") as folder:
        from vllm import LLM
        from vllm.platforms import current_platform

        if current_platform.device_type != device:
            raise InputError(
                f"runtime.engine: the installed vLLM runs on {current_platform.device_type or 'no device here'}, and "
                f"the search on {device}; set runtime.device to that, or install vLLM for {device}"
            )
        config_for_vllm(model).save_pretrained(folder)
        try:
            return LLM(
                model=folder, skip_tokenizer_init=True, load_format="dummy", generation_config="vllm",
                dtype=str(model.dtype).removeprefix("torch."), max_model_len=size.length,
                kv_cache_memory_bytes=size.tokens * size.bytes,
                max_num_seqs=max(1, min(MOST_SEQUENCES, size.tokens // size.length)),
                # In the CPU's case, to compile takes longer than the responses of a trial.
                enforce_eager=device == "cpu", async_scheduling=False, logprobs_mode="raw_logits",
                **_choosing(size.is_sampling),
            )  # fmt: skip
        except (ValueError, NotImplementedError, ImportError) as error:
            raise InputError(
                f"runtime.engine: vLLM can't run {type(model).__name__} with {size.length} tokens a response: "
                f"{' '.join(str(error).split())}. Lower generation.batch_tokens or generation.max_new_tokens if it is "
                "about memory, else use runtime.engine: transformers"
            ) from None


def _choosing(is_sampling: bool) -> dict[str, Any]:
    if is_sampling:
        from nex_merge.engines.vllm_sampling import SameNoise

        return {"logits_processors": [SameNoise]}
    return {
        "speculative_config": {
            "method": "custom_class", "model": vllm_drafts.PROPOSER, "num_speculative_tokens": vllm_drafts.LONGEST,
        },
    }  # fmt: skip


def config_for_vllm(model: PreTrainedModel) -> PreTrainedConfig:
    """A model's config, with an output layer of its own.

    vLLM's kernels for the CPU keep a packed copy of the output layer, which a reload leaves as it was where that layer
    is tied to the embeddings.
    """
    config: Any = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.tie_word_embeddings = False
    return config


@contextmanager
def _as_it_was() -> Iterator[None]:
    """vLLM is imported quietly, and what it changes of torch for the whole process is changed back."""
    os.environ.update({**_DEFAULTS, **os.environ, **_HERE})
    # Before the import, in which it has no handler yet.
    logging.getLogger("vllm").setLevel(logging.ERROR)
    set_num_threads, threads = torch.set_num_threads, torch.get_num_threads()
    with quietly(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            torch.set_num_threads = set_num_threads
            torch.set_num_threads(threads)
