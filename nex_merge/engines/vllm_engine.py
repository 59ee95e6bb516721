"""The engine whose responses are vLLM's: a family's resident weights, copied into vLLM, and read by transformers.

After a load, the weights are handed over when an answer is asked for, so that a variant that is only merged, as in a
rehearsal, costs nothing here. What vLLM then holds is held against the resident model, by the logits of a fixed text.
Activations are captured from the resident model: hooks in vLLM see them only without its compiled graphs and its
prefix cache, which are what makes it fast.

In float32 a token that rounding may have decided is decided as by `generation`: by a pass of the resident model over
that response alone. So the tokens are those of the engine on transformers, whatever the batches. Half precision has no
such guard, here as there.
"""

import sys
from collections.abc import Callable, Collection, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch.nn.attention import sdpa_kernel

from nex_merge.engines.comparison import largest_difference, tolerance
from nex_merge.engines.contracts import Composed
from nex_merge.engines.family import FamilyResident
from nex_merge.engines.transformers import ATTENTION, ModelReads
from nex_merge.engines.vllm_drafts import SOURCES
from nex_merge.engines.vllm_model import Continued, Request, Size, VllmModel
from nex_merge.errors import InputError, RunError, TrialError
from nex_merge.generation import batch_tokens, token_bytes
from nex_merge.generation.rotary import boundaries
from nex_merge.generation.sampling import MARGIN, NOT_FINITE, Job, choose_alone
from nex_merge.records import Prompt, Response
from nex_merge.setup.config import GenerationConfig, PromptsConfig, RuntimeConfig
from nex_merge.setup.families import Family
from nex_merge.setup.resolve import vllm_version
from nex_merge.wording import counted

# Tokens of the text by which weights are recognized, from all over the vocabulary.
PROBE = 64
# vLLM is built for a multiple of so many tokens a response, so that one more seldom takes building it again.
STEP = 256
# See `_unsure`.
USUAL = 10.0

_OTHER_WEIGHTS = "vLLM does not hold the weights that it was given"
_ADVICE = (
    ". This version of vLLM may not replace all weights of this architecture in place, or compute it otherwise; use "
    "runtime.engine: transformers for this family"
)


def check_vllm(runtime: RuntimeConfig) -> None:
    """Raise InputError if `runtime.engine` is vllm and it can't be. Imports nothing heavy."""
    if runtime.engine != "vllm":
        return
    if find_spec("vllm") is None:
        raise InputError(
            "runtime.engine: vllm needs vLLM, which is not installed here. It wants another transformers than "
            "nex-merge is tested with, so give it an environment of its own: docs/vllm.md has the commands. "
            "runtime.engine: transformers needs nothing"
        )
    if runtime.device.startswith("cuda:") and runtime.device != "cuda:0":
        raise InputError(
            f"runtime.device: expected cuda with runtime.engine: vllm, which takes the first GPU that it sees, got "
            f"{runtime.device}; set CUDA_VISIBLE_DEVICES to the GPU's number instead"
        )


class VllmAnswers:
    """Responses by vLLM, of a family's resident weights."""

    def __init__(self, resident: FamilyResident) -> None:
        self._resident = resident
        self._model: VllmModel | None = None
        self._built_for: Any = None  # the resident model whose config it has
        self._is_stale = True  # the resident weights are others than vLLM's
        self._length = 0

    def loaded(self) -> None:
        self._is_stale = True

    def expect(self, length: int) -> None:
        """So many tokens will be asked for, prompt and response: what is built before has room for them."""
        self._length = max(self._length, length)

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        config: GenerationConfig,
        drafts: Sequence[Response] = (),
        notify: Callable[[int], None] = lambda tokens: None,
        only: Collection[int] | None = None,
    ) -> list[Response]:
        wanted = range(len(prompts)) if only is None else sorted(only)
        jobs = [Job(i, k, tuple(prompts[i])) for i in wanted for k in range(config.samples)]
        if not jobs:
            return []
        self.expect(max(map(len, prompts)) + config.max_new_tokens)
        ends = self._resident.end_tokens()
        try:
            model = self._ready(config)
            # What an earlier call left there would make these tokens depend on it, if by rounding alone.
            model.forget_prefixes()
            self._take_drafts(jobs, drafts, ends)
            tokens = self._tokens(model, jobs, config, ends, notify)
        except TrialError:
            raise  # no response is under way
        except BaseException:
            self._close()  # or vLLM would go on with what it was asked for
            raise
        return [self._response(job, tokens[job], ends) for job in jobs]

    def _close(self) -> None:
        if self._model is not None:
            self._model.close()
        self._model, self._built_for = None, None

    def _ready(self, config: GenerationConfig) -> VllmModel:
        """A model with room for what was asked for, and with the resident weights."""
        resident, size = self._resident.model, self._size(config)
        built = self._model is not None and not self._model.is_closed and self._built_for is resident
        if self._model is None or not built or not self._model.size.has_room_for(size):
            self._close()
            self._model, self._built_for, self._is_stale = VllmModel(resident, size), resident, True
        if self._is_stale:
            self._hand_over(self._model)
            self._is_stale = False
        return self._model

    def _size(self, config: GenerationConfig) -> Size:
        model, width = self._resident.model, self._resident.dtype.itemsize
        length = min(-(-self._length // STEP) * STEP, self._resident.context or sys.maxsize)
        budget = batch_tokens(config, model.config, width)
        # Of keys and values, vLLM wants room for one response of full length, in whole blocks.
        return Size(length, max(budget, length + STEP), token_bytes(model.config, width), config.temperature > 0)

    def _hand_over(self, model: VllmModel) -> None:
        """Copy the resident weights into vLLM. Raises RunError unless it then gives their logits."""
        weights = dict(self._resident.model.named_parameters(remove_duplicate=False))
        if lacking := sorted(self._resident.tensors.keys() - weights.keys()):
            raise RunError(
                f"vLLM would keep earlier weights of {counted(len(lacking), 'tensor')}, for example {lacking[0]}: the "
                "resident model has no parameter of that name. Use runtime.engine: transformers for this family"
            )
        model.replace_weights(weights.items())
        if unlike := model.unlike(weights.items()):
            raise RunError(f"{_OTHER_WEIGHTS}: {unlike[0]} is another tensor there{_ADVICE}")
        embeddings: Any = self._resident.model.get_input_embeddings()
        size: int = embeddings.weight.shape[0]
        text = [i * size // PROBE for i in range(min(PROBE, size))]
        logits = self._resident.logits(text)
        expected = logits[np.arange(len(text) - 1), text[1:]]
        if not np.isfinite(logits).all():
            raise TrialError(NOT_FINITE)
        off, allowed = largest_difference(expected, model.next_logits(text)), tolerance(self._resident.dtype, logits)
        if not off <= allowed:
            raise RunError(
                f"{_OTHER_WEIGHTS}: its logits of a fixed text differ from those of transformers by {off:.3g}, and "
                f"rounding explains {allowed:.3g}{_ADVICE}"
            )

    def _take_drafts(self, jobs: Sequence[Job], drafts: Sequence[Response], ends: Sequence[int]) -> None:
        prompts = {job.prompt: job.ids for job in jobs}
        texts: dict[tuple[int, ...], list[list[int]]] = {}
        for draft in drafts:
            if draft.prompt in prompts:
                text = [token for token in draft.token_ids if token not in ends]
                texts.setdefault(prompts[draft.prompt], []).append(text)
        SOURCES.replace(texts)

    def _tokens(
        self,
        model: VllmModel,
        jobs: Sequence[Job],
        config: GenerationConfig,
        ends: Sequence[int],
        notify: Callable[[int], None],
    ) -> dict[Job, list[int]]:
        """The tokens of every response."""
        tokens: dict[Job, list[int]] = {job: [] for job in jobs}
        waiting = list(jobs)
        while waiting:
            found = self._continued(model, [(job, tokens[job]) for job in waiting], config, ends, notify)
            again = []
            for job, (new, unsure) in zip(waiting, found, strict=True):
                start, tokens[job] = len(tokens[job]), tokens[job] + new
                if self._overruled(job, tokens[job], unsure, config):
                    notify(len(tokens[job]) - start - len(new))
                    if tokens[job][-1] not in ends and len(tokens[job]) < config.max_new_tokens:
                        again.append(job)
            waiting = again
        return tokens

    def _continued(
        self,
        model: VllmModel,
        texts: Sequence[tuple[Job, Sequence[int]]],
        config: GenerationConfig,
        ends: Sequence[int],
        notify: Callable[[int], None],
    ) -> list[tuple[list[int], list[int]]]:
        """For each response so far, its further tokens, and the positions of those that rounding may have decided."""
        is_sampling = config.temperature > 0
        requests = {
            str(i): Request((*job.ids, *before), config.max_new_tokens - len(before), i if is_sampling else None)
            for i, (job, before) in enumerate(texts)
        }
        if not is_sampling:
            greedy = model.continued(requests, ends, notify)
            return [
                (one.token_ids, [len(before) + place for place in _unsure(one)])
                for one, (_, before) in zip(greedy.values(), texts, strict=True)
            ]
        from nex_merge.engines.vllm_sampling import SAMPLED, Row

        rows = {i: Row(job, len(before), []) for i, (job, before) in enumerate(texts)}
        SAMPLED.config, SAMPLED.rows = config, rows
        sampled = model.continued(requests, ends, notify)
        if not all(row.is_finite for row in rows.values()):
            raise TrialError(NOT_FINITE)
        return [(one.token_ids, row.unsure) for one, row in zip(sampled.values(), rows.values(), strict=True)]

    def _overruled(self, job: Job, tokens: list[int], unsure: Sequence[int], config: GenerationConfig) -> bool:
        """Whether the resident model would have chosen otherwise; then the response ends with its choice."""
        if self._resident.dtype != torch.float32:
            return False
        for place in sorted(set(unsure)):
            with sdpa_kernel(ATTENTION), torch.inference_mode():
                token = choose_alone(self._resident.model, job, tokens[:place], config)
            if token != tokens[place]:
                tokens[place:] = [token]
                return True
        return False

    def _response(self, job: Job, tokens: Sequence[int], ends: Sequence[int]) -> Response:
        text = str(self._resident.tokenizer.decode(list(tokens), skip_special_tokens=True))
        return Response(job.prompt, job.sample, job.ids, tuple(tokens), text, truncated=tokens[-1] not in ends)


def _unsure(found: Continued) -> list[int]:
    """The places of tokens that rounding may have decided. Raises TrialError if logits are not finite."""
    if not np.isfinite(found.largest).all():
        raise TrialError(NOT_FINITE)
    # The smallest logit is not known; the margin is that of logits which are at least of this size.
    margins = MARGIN * np.maximum(np.abs(found.largest), USUAL)
    return np.flatnonzero(np.array(found.leads) <= margins).tolist()


class VllmEngine(Composed):
    """A family's resident model, answered for by vLLM and read by transformers."""

    resident: FamilyResident
    answers: VllmAnswers

    def __init__(self, family: Family, runtime: RuntimeConfig) -> None:
        """Raises InputError for whatever is wrong with the family or the device, or if vLLM is missing."""
        check_vllm(runtime)
        resident = FamilyResident(family, runtime)
        if any(boundaries(config) for config in resident.configs()):
            raise InputError(
                "runtime.engine: vllm can't answer for this family, whose rotary frequencies depend on the length of "
                "what is read: vLLM takes others for it than transformers does. Use runtime.engine: transformers"
            )
        super().__init__(resident, VllmAnswers(resident), ModelReads(resident))

    def identity(self) -> str:
        return f"{super().identity()}, vLLM {vllm_version()}"

    def encode(self, prompts: Sequence[Prompt], config: PromptsConfig, max_new_tokens: int) -> list[list[int]]:
        ids = super().encode(prompts, config, max_new_tokens)
        self.answers.expect(max(map(len, ids), default=0) + max_new_tokens)
        return ids
