"""A recipe that people bring → the same recipe as the merger takes it, or what to write instead."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError
from nex_merge.merging.mergekit_plan import check_structure, planned_tensors
from nex_merge.merging.references import map_models

# What changes the tokenizer or the vocabulary; merges are scored and exported with the donor's.
_TOKENIZER = ("tokenizer_source", "tokenizer", "chat_template")
_DTYPES = ("float32", "bfloat16", "float16")


def adopt_recipe(
    content: Mapping[str, Any],
    member_of: Callable[[str], str | None],
    references: Mapping[str, str],
    out_dtype: str,
    tensors: Collection[str],
    merged: Mapping[str, Path],
    donor: str,
) -> dict[str, Any]:
    """A mergekit configuration with its models named as recipes of the family name them.

    `member_of`: the member's name by what a recipe calls it, None for other models. `references`: how recipes of the
    family name members. `out_dtype`: what the family's merges are stored in; mergekit's own default, `dtype`, does not
    apply. `tensors`: the model's parameters. `merged`: see `Streamer`. `donor`: the member whose tokenizer merges take,
    which a `tokenizer_source` may name. Raises InputError if mergekit can't read or plan
    the recipe, it names another model, or the merge would not be a model of the family.
    """
    check_structure(content)
    source = content.get("tokenizer_source")
    if source == "base":
        source = content.get("base_model", source)
    if isinstance(source, str) and member_of(source) == donor:
        content = {key: value for key, value in content.items() if key != "tokenizer_source"}
    for key in _TOKENIZER:
        if content.get(key) is not None:
            raise InputError(
                f"{key}: expected none, got {content[key]!r}: merges take the tokenizer of one member, which the "
                "family's `config` names; remove the key"
            )
    if content.get("dtype") is not None and content["dtype"] not in _DTYPES:
        raise InputError(f"dtype: expected {', '.join(_DTYPES[:-1])} or {_DTYPES[-1]}, got {content['dtype']!r}")
    if content.get("out_dtype") not in (None, out_dtype):
        raise InputError(
            f"out_dtype: expected {out_dtype}, in which the family's merges are stored, got {content['out_dtype']!r}; "
            "remove the key, or set the family's `dtype`"
        )

    def named(model: Any) -> str:
        member = member_of(model) if isinstance(model, str) else None
        if member is None:
            raise InputError(
                f"expected models of the family, by name ({', '.join(references)}) or as the family names their files, "
                f"got {model!r}; write one of these names, or add the model to the family"
            )
        return references[member]

    config = map_models(content, named) | {"out_dtype": out_dtype}
    planned = planned_tensors(config, merged)
    if other := sorted(planned ^ set(tensors)):
        whose = "the merge would have" if other[0] in planned else "the merge would lack"
        raise InputError(
            f"{whose} {other[0]} ({len(other)} tensors differ from those of the family's models): only merges with the "
            "family's layers can be scored; let the layer ranges cover each layer once, in order"
        )
    return config
