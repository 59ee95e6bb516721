"""mergekit's methods and architectures, and its plans of recipes. With `streamer`, all that imports mergekit."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from transformers import PreTrainedConfig

from nex_merge.checkpoints.configs import architecture_of
from nex_merge.checkpoints.weights import StoredTensor
from nex_merge.errors import InputError
from nex_merge.merging.ranks import RANK_BYTES
from nex_merge.merging.references import mergekit_config
from nex_merge.records import MethodParameter, MethodSpec
from nex_merge.wording import counted, first_line

# mergekit logs routine steps, such as adding the base as an input, as warnings.
logging.getLogger("mergekit").setLevel(logging.ERROR)

_RANDOM_METHODS = ("dare_", "della", "arcee_fusion")
_EXCLUDED = {"passthrough"}  # copies one model, merges nothing


def method_specs() -> dict[str, MethodSpec]:
    """The merge methods in mergekit's registry, by name."""
    from mergekit.merge_methods import ParameterScope, registered_methods
    from mergekit.merge_methods.base import BasePolicy

    specs = {}
    for method in registered_methods():
        spec, contract = method.spec, method.spec.contract
        if spec.name in _EXCLUDED:
            continue
        two_inputs = contract.max_inputs == 2
        names_base = contract.base in (BasePolicy.REQUIRED, BasePolicy.OPTIONAL) and not two_inputs
        parameters = {}
        for item in spec.parameters:
            required = getattr(item, "required", not isinstance(item.default, bool | int | float | type(None)))
            parameters[item.name] = MethodParameter(
                name=item.name,
                type=item.value_type.__name__,
                per_model=item.scope is not ParameterScope.SHARED,
                required=required,
                default=None if required else item.default,
            )
        min_models = max(
            contract.min_non_base or 1, (contract.min_inputs or 1) - (1 if names_base or two_inputs else 0)
        )
        specs[spec.name] = MethodSpec(
            name=spec.name,
            title=spec.pretty_name or spec.name,
            parameters=parameters,
            names_base=names_base,
            pairs=two_inputs or contract.max_non_base == 2,
            # slerp from a to b at t is slerp from b to a at 1 - t, and nuslerp with swapped weights is symmetric too.
            ordered=two_inputs and spec.name != "slerp",
            min_models=min_models,
            stochastic=spec.name.startswith(_RANDOM_METHODS),
        )
    return specs


def check_architecture(config: PreTrainedConfig, members: Mapping[str, Mapping[str, StoredTensor]]) -> None:
    """Raise InputError if mergekit's description of the architecture does not fit the members' tensors.

    `config`: the base's. `members`: the tensors that are the model's parameters, by member; see `check_layout`. Without
    a description of its own, mergekit infers one from the tensors, which fits.
    """
    from mergekit.architecture import arch_info_for_config

    architecture = arch_info_for_config(config)
    if architecture is None:
        return
    planned = architecture.all_weights(config)
    for member, tensors in members.items():
        for weight in planned:
            names = {weight.name, *(weight.aliases or ()), *(weight.tied_names or ())}
            if not weight.optional and not names & tensors.keys():
                tied = weight.name == "lm_head.weight" and config.tie_word_embeddings
                advice = (
                    "untie every member first: store a copy of the embeddings as lm_head.weight and set "
                    "tie_word_embeddings: false in config.json"
                    if tied
                    else "mergekit cannot merge this architecture"
                )
                raise InputError(
                    f"{member}: mergekit expects the tensor {weight.name} of every {architecture_of(config)}, and this "
                    f"checkpoint has none; {advice}"
                )
    names = {name for weight in planned for name in (weight.name, *(weight.aliases or ()))}
    if missing := sorted(members["base"].keys() - names):
        raise InputError(
            f"base: mergekit does not know the tensor {missing[0]} of {architecture_of(config)}, so a merge would lack "
            f"{counted(len(missing), 'tensor')}; mergekit cannot merge this architecture"
        )


def merge_adapter(base: Path, adapter: Path, folder: Path) -> Path:
    """Merge an adapter into a checkpoint below `folder`, as `mergekit-yaml` does for a recipe that names both."""
    from mergekit.common import ModelPath, ModelReference

    both = ModelReference(model=ModelPath(path=str(base)), lora=ModelPath(path=str(adapter)))
    return Path(both.merged(cache_dir=str(folder)).model.path)


def rank_bytes(method: str) -> dict[str, int]:
    """Bytes per element that a method's ranks take in the RankCache, by kind of order; empty for most methods."""
    from mergekit import merge_methods

    kind = getattr(merge_methods.get(method), "sparsification_method", None)
    return {kind.value: RANK_BYTES[kind.value]} if kind and kind.value in RANK_BYTES else {}


def check_structure(config: Mapping[str, Any]) -> None:
    """Raise InputError unless mergekit reads the mapping as a configuration by a method that it has."""
    from mergekit import merge_methods
    from mergekit.config import MergeConfiguration

    try:
        merge_methods.get(MergeConfiguration.model_validate(config).merge_method)
    except ValidationError as error:
        raise InputError(f"mergekit can't read it: {_reason(error)}") from None
    except (RuntimeError, TypeError, AttributeError) as error:  # its validators don't all raise what pydantic collects
        raise InputError(f"mergekit can't read it: {first_line(error)}") from None


def planned_tensors(config: Mapping[str, Any], merged: Mapping[str, Path]) -> set[str]:
    """The names of the tensors that a recipe gives, without computing them.

    `merged`: see `Streamer`. Raises InputError if mergekit can't plan the recipe.
    """
    try:
        planner, is_tied = planned(config, merged)
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"mergekit can't plan it: {_reason(error)}") from None
    names = {weight.name for weight, _ in planner._tensors}
    return names - {"lm_head.weight"} if is_tied else names


def _reason(error: Exception) -> str:
    """What is wrong, on one line; of what pydantic found, the first."""
    if not isinstance(error, ValidationError):
        return first_line(error)
    first = error.errors()[0]
    key = "".join(f"{part}: " for part in [".".join(map(str, first["loc"]))] if part)
    got = "" if first["type"] == "missing" else f", got {first['input']!r}"
    return f"{key}{first['msg']}{got}"


def planned(config: Mapping[str, Any], merged: Mapping[str, Path]) -> tuple[Any, bool]:
    """mergekit's plan of a recipe, and whether the merge ties its output layer to the embeddings."""
    from mergekit.architecture import get_architecture_info
    from mergekit.config import MergeConfiguration
    from mergekit.io.tasks import LoaderCache
    from mergekit.merge import _model_out_config
    from mergekit.options import MergeOptions
    from mergekit.plan import MergePlanner

    options = MergeOptions(quiet=True, device="cpu")
    parsed = MergeConfiguration.model_validate(mergekit_config(config, merged))
    architecture = get_architecture_info(parsed, options)
    LoaderCache().setup(options=options)
    out_config: Any = _model_out_config(parsed, architecture)
    planner = MergePlanner(parsed, architecture, options=options, out_model_config=out_config)
    planner._plan()
    return planner, bool(out_config.tie_word_embeddings)
