"""The family's checkpoints together: whether they can be merged, and what was mended to make it so."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedConfig

from nex_merge.checkpoints.configs import mended_config
from nex_merge.checkpoints.files import about, leftovers
from nex_merge.checkpoints.generation import mended_generation_config
from nex_merge.checkpoints.quantization import FLOATS
from nex_merge.checkpoints.tokenizers import check_same_tokens, read_vocabulary
from nex_merge.checkpoints.weights import StoredTensor, stored_tensors
from nex_merge.errors import InputError
from nex_merge.merging.differences import behaviour_keys, check_structure, differing_keys
from nex_merge.merging.layout import check_layout
from nex_merge.merging.mergekit_plan import check_architecture
from nex_merge.records import MethodSpec

# safetensors' names of the dtypes that can be merged, and torch's.
_DTYPES = {dtype: name for dtype, name in FLOATS.items() if dtype != "F64"}


def member_configs(folders: Mapping[str, Path]) -> dict[str, PreTrainedConfig]:
    """The transformers config of every member, mended (see `mended_config`).

    Raises InputError if one cannot be read, is none of a causal language model, or belongs to quantized weights.
    """
    return {name: _config(name, folder, stored)[0] for name, (folder, stored) in _stored(folders).items()}


def generation_config(folder: Path) -> GenerationConfig:
    """A checkpoint's generation config, mended (see `mended_generation_config`); transformers' default if it has none.

    Raises InputError if it cannot be read.
    """
    return mended_generation_config(folder)[0]


def preflight(folders: Mapping[str, Path], donor: str, named: bool | None = None) -> dict[str, tuple[str, list[int]]]:
    """Check that the members can be merged. Returns the base's tensors: name -> (safetensors dtype, shape).

    `donor`: the member whose config the merges get. `named`: whether the family names it; by default, if it is not the
    base. Only then may configs differ in what the tensors mean. Raises InputError if configs, tokenizers or tensors
    cannot go together, or if a file of a member is missing or damaged.
    """
    named = donor != "base" if named is None else named
    check_distinct(folders)
    stored = _stored(folders)
    configs = {name: _config(name, *found)[0] for name, found in stored.items()}
    base = configs["base"]
    for name, config in configs.items():
        check_structure(name, base, config)
        differing = {} if named else behaviour_keys(differing_keys(base, config))
        if differing:
            pairs = [f"{key}: expected {ours!r} as in base, got {own!r}" for key, (ours, own) in differing.items()]
            raise InputError(
                f"{name}: {'; '.join(pairs)} (config.json). The same tensors mean another model under each, and merges "
                f"can use only one; choose the member in the family, for example `config: {name}`"
            )
    vocabularies = {}
    tensors = {}
    for name, (folder, found) in stored.items():
        with about(name):
            vocabularies[name] = read_vocabulary(folder)
            check_same_tokens(vocabularies["base"], vocabularies[name])
            mended_generation_config(folder)
            tensors[name] = check_layout(folder, configs[name], found)[0]
    check_architecture(base, tensors)
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors["base"].items()}


def check_distinct(folders: Mapping[str, Path], methods: Sequence[MethodSpec] = ()) -> list[str]:
    """Notes on experts that are the base. Raises InputError if one folder has two names.

    Two experts are refused for every method, since mergekit takes a folder once. The base as an expert is refused for
    those of `methods` that need more experts than are left without it.
    """
    notes, seen = [], {}
    for name, folder in folders.items():
        first = seen.setdefault(folder.resolve(), name)
        if first == name:
            continue
        if first != "base":
            raise InputError(f"{name}: the same folder as {first} ({folder}); name every checkpoint once")
        left = len({path.resolve() for path in folders.values()}) - 1
        for method in methods:
            # A method of pairs that names the base would be given the base twice in some of its pairs.
            if method.names_base and (method.pairs or left < method.min_models):
                raise InputError(
                    f"{name}: the same folder as base ({folder}), and {method.name} needs at least {method.min_models} "
                    f"models besides the base; take {name} out of the family's models"
                )
        notes.append(f"{name}: the same folder as base: its task vector is zero")
    return notes


def member_notes(folders: Mapping[str, Path]) -> list[str]:
    """A line for everything of the members' files that was dropped, mended or ignored, with member, file and key.

    Raises InputError as `preflight` does.
    """
    notes = check_distinct(folders)
    vocabularies = {}
    stored = _stored(folders)
    for name, (folder, tensors) in stored.items():
        config, of_config = _config(name, folder, tensors)
        with about(name):
            vocabularies[name] = read_vocabulary(folder)
            of_tokens = check_same_tokens(vocabularies.get("base", vocabularies[name]), vocabularies[name])
            beyond = [number for number in vocabularies[name].tokens if number >= config.vocab_size]
            if beyond:
                token = vocabularies[name].tokens[min(beyond)]
                of_tokens.append(
                    f"tokenizer.json: {len(beyond)} tokens beyond the {config.vocab_size} rows of the embeddings, for "
                    f"example {token!r} ({min(beyond)}); prompts cannot use them"
                )
            _, of_layout = check_layout(folder, config, tensors)
            of_generation = mended_generation_config(folder)[1]
        ignored = leftovers(folder, {tensor.file for tensor in tensors.values()})
        notes += [f"{name}: {note}" for note in of_config + of_generation + of_layout + of_tokens + ignored]
    return notes


def weights_dtype(tensors: Mapping[str, tuple[str, list[int]]], wanted: str | None = None) -> str:
    """The dtype of the merged weights, by torch's name: the one `wanted`, or that of most of a checkpoint's parameters.

    `tensors`: see `preflight`. `wanted`: the family's `dtype`. Raises InputError if weights are stored in none of
    bfloat16, float16 and float32.
    """
    if wanted is not None:
        return wanted
    sizes: dict[str, int] = {}
    for dtype, shape in tensors.values():
        sizes[dtype] = sizes.get(dtype, 0) + torch.Size(shape).numel()
    most = max(sizes, key=lambda dtype: sizes[dtype])
    if most not in _DTYPES:
        raise InputError(
            f"base: expected weights stored as {', '.join(_DTYPES)}, got {most}; choose what merged weights are stored "
            "as in the family, for example `dtype: float32`"
        )
    return _DTYPES[most]


def rounded_members(folders: Mapping[str, Path], wanted: str | None = None) -> list[str]:
    """A line for every member with weights that the dtype of the merged weights cannot hold exactly.

    Merged weights, and with them the baselines, are stored in one dtype (see `weights_dtype`): float32 parents of a
    bfloat16 base are scored and exported rounded. Raises InputError if a checkpoint cannot be read.
    """
    stored = _stored(folders)
    target = weights_dtype(_described(stored["base"][1]), wanted)
    lines = []
    for name, (_, tensors) in stored.items():
        for dtype, count in Counter(tensor.dtype for tensor in tensors.values()).items():
            # float32 holds the half precisions exactly.
            if FLOATS.get(dtype) in (target, None) or (target == "float32" and dtype != "F64"):
                continue
            of = "is stored in" if count == len(tensors) else f"has {count} of {len(tensors)} tensors in"
            lines.append(f"rounded: {name} {of} {FLOATS.get(dtype, dtype)}, merged weights are stored in {target}")
    return lines


def stored_dtype(folder: Path) -> str:
    """The dtype that most of a checkpoint's parameters are stored in. Raises InputError if they cannot be read."""
    tensors = stored_tensors(folder)
    mended_config(folder, tensors)
    return weights_dtype(_described(tensors))


def end_tokens(folder: Path, config: PreTrainedConfig) -> set[int]:
    """A checkpoint's end-of-sequence tokens: those of its generation config and of its config."""
    found: set[int] = set()
    for value in (generation_config(folder).eos_token_id, config.eos_token_id):
        found |= set(value) if isinstance(value, list) else {value} if isinstance(value, int) else set()
    return found


def _stored(folders: Mapping[str, Path]) -> dict[str, tuple[Path, dict[str, StoredTensor]]]:
    """Folder and tensors of every member."""
    found = {}
    for name, folder in folders.items():
        with about(name):
            found[name] = (folder, stored_tensors(folder))
    return found


def _config(name: str, folder: Path, tensors: Mapping[str, StoredTensor]) -> tuple[PreTrainedConfig, list[str]]:
    with about(name):
        return mended_config(folder, tensors)


def _described(tensors: Mapping[str, StoredTensor]) -> dict[str, tuple[str, list[int]]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
