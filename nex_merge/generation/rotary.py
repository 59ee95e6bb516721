"""Rotary frequencies that depend on the length of what is read, and so on whatever is read in the same pass.

transformers' `longrope` takes other frequencies for a pass as soon as one of its positions is beyond
`original_max_position_embeddings`, and `dynamic` stretches them beyond `max_position_embeddings`, the context that no
response leaves. A batch stays on one side of such a boundary, where frequencies are those of a response alone.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from transformers import PreTrainedConfig

from nex_merge.errors import InputError
from nex_merge.records import Prompt


def boundaries(config: PreTrainedConfig) -> list[int]:
    """The lengths in tokens, ascending, beyond which a model's rotary frequencies change; none for most models."""
    text = config.get_text_config()
    given = getattr(text, "rope_parameters", None) or {}
    found = set()
    # One set of parameters, or one per type of layer.
    for part in (given, *given.values()):
        kind = str(part.get("rope_type") or part.get("type")) if isinstance(part, Mapping) else ""
        if kind == "longrope":
            found.add(part.get("original_max_position_embeddings") or text.max_position_embeddings)
        elif "dynamic" in kind:
            found.add(text.max_position_embeddings)
    return sorted(found - {None})


def side(limits: Sequence[int], length: int) -> int:
    """On which side of the boundaries a text of `length` tokens is: how many of them it is beyond."""
    return bisect_left(limits, length)


def ceiling(limits: Sequence[int], length: int) -> int | None:
    """The boundary that a text of `length` tokens may grow to; None if there is none above it."""
    at = side(limits, length)
    return limits[at] if at < len(limits) else None


def check_sides(
    config: PreTrainedConfig,
    prompt_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    prompts: Sequence[Prompt] = (),
) -> None:
    """Raise InputError if a response could cross a boundary: what begins under one model would end under another.

    `prompts`: what the ids encode, for the message.
    """
    limits = boundaries(config)
    for number, ids in enumerate(prompt_ids, 1):
        limit = ceiling(limits, len(ids))
        if limit is None or len(ids) + max_new_tokens <= limit:
            continue
        place = f" ({prompts[number - 1].where})" if prompts and prompts[number - 1].where else ""
        longest = max(len(ids) for ids in prompt_ids if ceiling(limits, len(ids)) == limit)
        way = f"Lower it to at most {limit - longest}, or remove" if longest < limit else "Remove"
        raise InputError(
            f"generation.max_new_tokens: {max_new_tokens}: the response to prompt {number}{place} of {len(ids)} tokens "
            f"could cross token {limit}, beyond which this model has other rotary frequencies (rope_type, "
            "original_max_position_embeddings in config.json), so that it would begin under one model and end under "
            f"another. {way} prompts of up to {limit} tokens"
        )
