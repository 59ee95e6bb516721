"""Proof that a checkpoint on disk is a model in memory: its tensors, and what transformers alone makes of it."""

import json
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from nex_merge.checkpoints.files import weights_of
from nex_merge.checkpoints.hub import IDENTITY
from nex_merge.engines.comparison import first_departure, mean_logprob, tolerance
from nex_merge.engines.resident import ModelResident
from nex_merge.engines.saving import decoded, read_back
from nex_merge.errors import RunError
from nex_merge.inert import json_text
from nex_merge.merging import digest, tensor_digest
from nex_merge.records import Response


def write_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write into a checkpoint what it is and which tensors it has."""
    (folder / IDENTITY).write_text(json_text(identity), encoding="utf-8")


def read_tensors(path: Path, names: Container[str] | None = None) -> dict[str, torch.Tensor]:
    """The tensors in a file of a checkpoint, in their stored dtype; `names`: only those of these names."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if names is None or name in names}  # noqa: SIM118


def checkpoint_digest(folder: Path, every: bool = False) -> str:
    """sha256 of the tensors stored in a checkpoint, as `merging.digest` has it.

    A tied lm_head is left out, unless `every` tensor counts. A config that doesn't say ties it, as most classes do.
    """
    tied = not every and json.loads((folder / "config.json").read_text()).get("tie_word_embeddings", True)
    digests = {}
    for path in weights_of(folder):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                if not (tied and name == "lm_head.weight"):
                    digests[name] = tensor_digest(name, file.get_tensor(name))
    return digest(digests)


def check_responses(
    folder: Path, resident: ModelResident, responses: Sequence[Response], recorded: Sequence[float] | None
) -> str:
    """Load a checkpoint with transformers alone and hold it against stored responses of the model in memory.

    `recorded`: None where transformers has to give the responses again, token by token; otherwise the mean
    log-probability that their tokens have to have, in nats (empty: those of the model in memory, whose tensors are the
    ones that answered). Returns what was found, in words. Raises RunError if the model is another.
    """
    reader, dtype = read_back(resident, folder), resident.dtype
    if recorded is None:
        for response in responses:
            at = first_departure(reader.logits([*response.prompt_ids, *response.token_ids]), response)
            if at is not None:
                raise _another_answer(folder, response, f"would give another token {at + 1}")
        _check_decoding(reader, responses[0], resident.end_tokens(), folder)
        return f"it gives the {_count(responses)} again, token by token"
    known = recorded or [mean_logprob(resident.logits([*r.prompt_ids, *r.token_ids]), r) for r in responses]
    for response, expected in zip(responses, known, strict=True):
        logits = reader.logits([*response.prompt_ids, *response.token_ids])
        off, allowed = abs(mean_logprob(logits, response) - expected), tolerance(dtype, logits)
        if not off <= allowed:
            raise _another_answer(folder, response, f"has a mean log-probability that is off by {off:.3g} nats "
                                  f"({allowed:.3g} allowed in {str(dtype)[6:]})")  # fmt: skip
    return (
        f"it gives the tokens of the {_count(responses)} the same log-probability, within the rounding of "
        f"{str(dtype)[6:]}"
    )


def _check_decoding(reader: ModelResident, response: Response, ends: Sequence[int], folder: Path) -> None:
    """Let transformers decode greedily, with the checkpoint's own generation config where that has a say."""
    if decoded(reader, response.prompt_ids, len(response.token_ids), ends) != list(response.token_ids):
        raise _another_answer(folder, response, "is decoded differently by transformers")


def _another_answer(folder: Path, response: Response, what: str) -> RunError:
    return RunError(
        f"{folder}: not the model that was scored: the stored response to prompt {response.prompt + 1} {what}. The "
        "libraries or the members' configs have changed since; the folder is kept for inspection"
    )


def _count(responses: Sequence[Response]) -> str:
    return "first stored response" if len(responses) == 1 else f"first {len(responses)} stored responses"
