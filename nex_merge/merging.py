"""MergeRecipe -> merged model. The only module that imports mergekit; its private names stay in here.

One model instance stays resident and is overwritten by every variant; nothing is written to disk. The tensors are bit
for bit those that `mergekit-yaml` writes for the same recipe and seed on the CPU.
"""

import copy
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel

from nex_merge.errors import InputError, TrialError
from nex_merge.records import MergeRecipe, MethodParameter, MethodSpec

# mergekit reports routine steps (a base that it adds as an input) as warnings and infos on the root logger.
logging.getLogger("mergekit").setLevel(logging.ERROR)

# What has to be the same in all members for tensors to be averaged at all.
_STRUCTURE = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "tie_word_embeddings", "attention_bias",
)  # fmt: skip
# What the merged weights run under: taken from one member, so the others have to agree or that member be named.
_BEHAVIOUR = ("rope_parameters", "rope_scaling", "rms_norm_eps", "sliding_window", "use_sliding_window")
_RANDOM_METHODS = ("dare_", "della", "arcee_fusion")
_EXCLUDED = {"passthrough"}  # copies one model, merges nothing


def method_specs() -> dict[str, MethodSpec]:
    """The merge methods that mergekit's registry offers, by name."""
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
        fewest = max(contract.min_non_base or 1, (contract.min_inputs or 1) - (1 if names_base or two_inputs else 0))
        specs[spec.name] = MethodSpec(
            name=spec.name,
            title=spec.pretty_name or spec.name,
            parameters=parameters,
            names_base=names_base,
            pairs=two_inputs or contract.max_non_base == 2,
            # slerp from a to b at t is slerp from b to a at 1 - t; nuslerp's weights do the same.
            ordered=two_inputs and spec.name != "slerp",
            min_models=fewest,
            stochastic=spec.name.startswith(_RANDOM_METHODS),
        )
    return specs


def member_configs(folders: Mapping[str, Path]) -> dict[str, PreTrainedConfig]:
    """The transformers config of every member. Raises InputError where one can't be read."""
    configs = {}
    for name, folder in folders.items():
        if any(mark in str(folder) for mark in "@+"):
            raise InputError(
                f"{name}: mergekit reads '@' and '+' in {folder} as revision and adapter; rename the folder"
            )
        try:
            configs[name] = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        except (ValueError, OSError, KeyError, json.JSONDecodeError) as error:
            raise InputError(f"{name}: {folder}/config.json can't be read: {_first_line(error)}") from None
    return configs


def preflight(folders: Mapping[str, Path], donor: str) -> dict[str, tuple[str, list[int]]]:
    """Compare the members and refuse, with InputError, what can't be merged.

    Returns the base's tensors: name -> (dtype as safetensors writes it, shape).
    """
    configs = member_configs(folders)
    for name, config in configs.items():
        for key in _STRUCTURE:
            ours, theirs = getattr(configs["base"], key, None), getattr(config, key, None)
            if ours != theirs:
                raise InputError(f"{name} can't be merged with base: {key} is {theirs!r}, the base's {ours!r}")
        for key in _BEHAVIOUR:
            ours, theirs = getattr(configs[donor], key, None), getattr(config, key, None)
            if ours != theirs and donor == "base":
                raise InputError(
                    f"{name} and base disagree on {key}: {theirs!r} against {ours!r}. Merged weights run under one of "
                    f"them: name whose in the family, for example `config: {name}`"
                )
    vocabularies = {name: _vocabulary(folder) for name, folder in folders.items()}
    for name, vocabulary in vocabularies.items():
        if vocabulary != vocabularies["base"]:
            raise InputError(f"{name} can't be merged with base: their tokenizers' vocabularies differ")
    tensors = {name: _tensor_headers(folder) for name, folder in folders.items()}
    if tied := configs["base"].tie_word_embeddings:
        for headers in tensors.values():
            headers.pop("lm_head.weight", None)
    base = tensors["base"]
    for name, headers in tensors.items():
        for tensor in base.keys() ^ headers.keys():
            where = "only the base" if tensor in base else f"only {name}"
            raise InputError(f"{name} can't be merged with base: {where} has the tensor {tensor} (tied: {tied})")
        for tensor, (_, shape) in headers.items():
            if shape != base[tensor][1]:
                raise InputError(f"{name} can't be merged with base: {tensor} is {shape}, the base's {base[tensor][1]}")
    return base


def _vocabulary(folder: Path) -> Any:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{folder}: has no tokenizer.json; a checkpoint with its (fast) tokenizer would do")
    data = json.loads(path.read_text(encoding="utf-8"))
    return data["model"].get("vocab")


def _tensor_headers(folder: Path) -> dict[str, tuple[str, list[int]]]:
    headers = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    part = file.get_slice(name)
                    headers[name] = (part.get_dtype(), part.get_shape())
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} can't be read: {_first_line(error)}") from None
    return headers


def weights_dtype(tensors: Mapping[str, tuple[str, list[int]]]) -> str:
    """The dtype of most of a checkpoint's parameters, as mergekit and torch name it."""
    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    sizes: dict[str, int] = {}
    for dtype, shape in tensors.values():
        sizes[dtype] = sizes.get(dtype, 0) + torch.Size(shape).numel()
    most = max(sizes, key=lambda dtype: sizes[dtype])
    if most not in names:
        raise InputError(f"base: weights are stored as {most}; {', '.join(names)} can be merged")
    return names[most]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class Merger:
    """A family's resident model. `load(recipe)` overwrites it with a variant.

    `device` and `dtype` are those of computing; the variant's tensors are first rounded to the recipe's `out_dtype`,
    so that a wider dtype holds exactly what an export stores.
    """

    def __init__(self, folders: Mapping[str, Path], donor: str, device: str, dtype: torch.dtype) -> None:
        self._configs = member_configs(folders)
        self._donor = donor
        with torch.device(device):
            self.model: PreTrainedModel = AutoModelForCausalLM.from_config(
                copy.deepcopy(self._configs[donor]), dtype=dtype, trust_remote_code=False
            )
        self.model.eval().requires_grad_(False)
        self.model.generation_config = generation_config(folders[donor])
        # A base often ends with another token than its chat fine-tunes; a merge may use either's.
        self.model.generation_config.eos_token_id = sorted(
            {token for name, folder in folders.items() for token in _end_tokens(folder, self._configs[name])}
        )
        self._rotary = {"": self.model.model.rotary_emb}

    def load(self, recipe: MergeRecipe) -> str:
        """Merge `recipe` into the resident model; the sha256 of the merged tensors (see `digest`).

        Raises TrialError where a tensor is not finite, or a parameter was not written.
        """
        self._run_as(recipe)
        parameters = dict(self.model.named_parameters())
        written, digests = set(), {}
        for name, tensor in merged_tensors(recipe):
            if name not in parameters:
                raise TrialError(f"the merge gave a tensor that the model does not have: {name}")
            if not torch.isfinite(tensor).all():
                raise TrialError(f"the merge is not finite: {name}")
            parameters[name].copy_(tensor)
            written.add(name)
            digests[name] = tensor_digest(name, tensor)
        missing = sorted(parameters.keys() - written)
        if missing:
            raise TrialError(f"the merge left {len(missing)} parameters unwritten, the first {missing[0]}")
        return digest(digests)

    def member_of(self, recipe: MergeRecipe) -> str:
        """Whose config a variant runs under: base's and parents' own, the donor's for merges."""
        return self._donor if recipe.kind == "merge" else recipe.parameters["model"]

    def config_of(self, recipe: MergeRecipe) -> PreTrainedConfig:
        """The config that a variant runs under, to be saved with it."""
        return copy.deepcopy(self._configs[self.member_of(recipe)])

    def _run_as(self, recipe: MergeRecipe) -> None:
        """Give base and parents their own rotary embedding, and merges the donor's."""
        member = self.member_of(recipe)
        if self._configs[member].to_dict().get("rope_parameters") == self._configs[self._donor].rope_parameters:
            member = ""
        if member not in self._rotary:
            kind = type(self._rotary[""])
            self._rotary[member] = kind(self._configs[member]).to(self.model.device)
        self.model.model.rotary_emb = self._rotary[member]


def generation_config(folder: Path) -> GenerationConfig:
    """A checkpoint's generation config; without one, an empty one."""
    if (folder / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(folder)
    return GenerationConfig()


def _end_tokens(folder: Path, config: PreTrainedConfig) -> set[int]:
    found: set[int] = set()
    for value in (generation_config(folder).eos_token_id, config.eos_token_id):
        found |= set(value) if isinstance(value, list) else {value} if isinstance(value, int) else set()
    return found


def merged_tensors(recipe: MergeRecipe) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a variant, one by one, in the recipe's `out_dtype`, on the CPU.

    A tied `lm_head` is left out, as the model has no such parameter. Raises TrialError where mergekit refuses.
    """
    from mergekit.architecture import get_architecture_info
    from mergekit.config import MergeConfiguration
    from mergekit.graph import Executor
    from mergekit.io.tasks import LoaderCache
    from mergekit.merge import _model_out_config
    from mergekit.options import MergeOptions
    from mergekit.plan import MergePlanner

    options = MergeOptions(quiet=True, device="cpu")
    config = MergeConfiguration.model_validate(copy.deepcopy(dict(recipe.config)))
    out_dtype = getattr(torch, config.out_dtype or config.dtype or "float32")
    # Masks are drawn from torch's global generator, which is given back as it was.
    with torch.random.fork_rng(devices=[]):
        try:
            architecture = get_architecture_info(config, options)
            LoaderCache().setup(options=options)
            out_config = _model_out_config(config, architecture)
            planner = MergePlanner(config, architecture, options=options, out_model_config=out_config)
            planner._plan()
            names = {task: weight.name for weight, task in planner._tensors}
            executor = Executor([task for _, task in planner._tensors])
            torch.manual_seed(recipe.seed)
            for task, tensor in executor.run(quiet=True):
                if tensor is None or (names[task] == "lm_head.weight" and out_config.tie_word_embeddings):
                    continue
                yield names[task], tensor.to(out_dtype)
        except (RuntimeError, ValueError, KeyError) as error:
            raise TrialError(f"mergekit refuses the recipe: {_first_line(error)}") from error


def tensor_digest(name: str, tensor: torch.Tensor) -> str:
    """sha256 over a tensor's name, dtype, shape and bytes."""
    content = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return content.hexdigest()


def digest(tensors: Mapping[str, str]) -> str:
    """sha256 of a checkpoint from its tensors' digests, whatever their order."""
    return hashlib.sha256("\n".join(tensors[name] for name in sorted(tensors)).encode()).hexdigest()
