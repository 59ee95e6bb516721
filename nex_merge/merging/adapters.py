"""Adapters as members: merged once into their base by mergekit, where that is what peft computes with them.

peft computes a layer and its adapter side by side; merging adds the adapter to the layer's weights. Where weights have
more than one use, as embeddings that the output layer is tied to, or where tensors of the adapter find no place, the
two are different models.
"""

import copy
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedConfig

from nex_merge.atomic import finish, workspace
from nex_merge.checkpoints.adapters import RECORD, WEIGHTS, AdapterMember, kept_notes, other_base
from nex_merge.checkpoints.configs import mended_config
from nex_merge.checkpoints.files import TOKENIZER_FILES, about, linked_checkpoint
from nex_merge.checkpoints.quantization import FLOATS
from nex_merge.checkpoints.weights import stored_tensors
from nex_merge.errors import DISK_FULL, InputError
from nex_merge.merging.mergekit_plan import merge_adapter
from nex_merge.wording import counted, listed

# Tokens that peft's model and the merged one read; none of them is special to an adapter but those it trains.
READ = 64
# Two orders of the same sums in float32 differ by less than this share of the largest logit, and weights that are
# rounded twice, as a merged layer and its adapter's part are, by less than so many times those that are rounded once.
EXACT = 1e-4
TWICE = 8
_LISTED = 3
# Parameters that peft makes anew and shares between layers; it says of those, too, that a file has none.
_SHARED = ("vblora_vector_bank", "tinylora_v", "unilora_theta_d")


@dataclass(frozen=True)
class _AsPeft:
    """What peft makes of an adapter on its base."""

    logits: torch.Tensor  # float32 [READ, V], of the base with the adapter beside it
    merged: torch.Tensor  # of the same model, merged in float32
    rounded: torch.Tensor  # of that one, its weights rounded as they are stored
    notes: list[str]


def merge_adapters(adapters: Mapping[str, AdapterMember], folders: Mapping[str, Path]) -> None:
    """Make the checkpoints of a family's adapters in `folders`, unless an earlier run has.

    Raises InputError, naming member, adapter and what to do, if an adapter can't be merged, in whole, into weights that
    give the logits that peft gives for it.
    """
    for name, member in adapters.items():
        if not (folders[name] / RECORD).is_file():
            _merge(name, member, folders[name])


def adapter_notes(adapters: Mapping[str, AdapterMember], folders: Mapping[str, Path]) -> list[str]:
    """What is to be said of a family's adapters: peft's warnings, and bases other than those they were trained on."""
    notes = []
    for name, member in adapters.items():
        other = other_base(member)
        notes += [f"{name}: {note}" for note in [*kept_notes(folders[name]), *([other] if other else [])]]
    return notes


def adapter_logits(
    member: AdapterMember, texts: Sequence[Sequence[int]], last: int, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """peft's logits for an adapter on its base, float32 [tokens, V] on the CPU: nothing is merged.

    After the `last` tokens of every text.
    """
    with tempfile.TemporaryDirectory(prefix="nex-merge-") as name, _warnings():
        folder, config = _base(member.base, Path(name))
        adapted = _with_adapter(member, folder, config, dtype)[0].to(device)
        return torch.cat([_logits(adapted, ids)[-last:] for ids in texts])


def _merge(name: str, member: AdapterMember, out: Path) -> None:
    try:
        with workspace(out) as work:
            _make(name, member, out, work)
    except OSError as error:
        raise InputError(f"{out.parent}: the merged adapter cannot be kept here: {error.strerror}") from None


def _make(name: str, member: AdapterMember, out: Path, work: Path) -> None:
    """Make an adapter's checkpoint in `work`, and give it its place."""
    try:
        with about(name):
            folder, config = _base(member.base, work)
            _check_vocabulary(member, config)
            ids = _ids(member, config)
            found = _as_peft(member, folder, config, ids)
            made = out if out.is_dir() else _by_mergekit(member, folder, work)
            _check_same(member, config, made, ids, found)
        (made / RECORD).write_text(json.dumps({"notes": found.notes}), encoding="utf-8")
        # Another process may have made it meanwhile.
        if not out.exists():
            finish(made, work / "base")
            os.replace(made, out)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # whatever peft, transformers and mergekit make of an adapter
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        raise InputError(
            f"{name}: the adapter {member.adapter} cannot be merged into {member.base}: {reason}. Is that the "
            "checkpoint that it was trained on?"
        ) from None


def _base(base: Path, work: Path) -> tuple[Path, PreTrainedConfig]:
    """A folder in `work` that peft and mergekit load as the base, under its mended config; and that config."""
    config, _ = mended_config(base, stored_tensors(base))
    folder = work / "base"
    folder.mkdir()
    linked_checkpoint(base, folder)
    for file in ("config.json", "generation_config.json"):  # what is wrong with the second would keep it from saving
        (folder / file).unlink(missing_ok=True)
    config.to_json_file(folder / "config.json")
    return folder, config


def _by_mergekit(member: AdapterMember, base: Path, work: Path) -> Path:
    """The merged checkpoint, with the bits that mergekit gives for `base+adapter`."""
    with _warnings():
        folder = merge_adapter(base, member.adapter, work)
    for file in TOKENIZER_FILES:
        source = next((f / file for f in (member.adapter, member.base) if (f / file).is_file()), None)
        if source is not None:
            shutil.copy(source, folder / file)
    if (member.base / "generation_config.json").is_file():
        shutil.copy(member.base / "generation_config.json", folder / "generation_config.json")
    return folder


@contextmanager
def _warnings() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        yield raised


def _with_adapter(member: AdapterMember, base: Path, config: PreTrainedConfig, dtype: torch.dtype) -> tuple[Any, Any]:
    """peft's model, and its report on the adapter's tensors: missing_keys and unexpected_keys."""
    import peft

    if (kind := member.config.get("peft_type")) not in peft.PEFT_TYPE_TO_CONFIG_MAPPING:
        raise InputError(
            f"the adapter {member.adapter} cannot be merged into {member.base}: peft_type: {kind!r} is unknown to peft "
            f"{peft.__version__}; newer kinds need a newer peft"
        )
    model = AutoModelForCausalLM.from_pretrained(
        base, config=copy.deepcopy(config), dtype=dtype, trust_remote_code=False
    )
    adapted = peft.PeftModel.from_pretrained(model, str(member.adapter), torch_device="cpu")
    # The same once more: only this call says what became of the tensors.
    report = adapted.load_adapter(str(member.adapter), "default", torch_device="cpu")
    return adapted.eval(), report


def _as_peft(member: AdapterMember, base: Path, config: PreTrainedConfig, ids: Sequence[int]) -> _AsPeft:
    """Raises InputError if a tensor of the adapter finds no place, or one that its config asks for is missing."""
    stored = {name: getattr(torch, FLOATS[tensor.dtype]) for name, tensor in stored_tensors(base).items()}
    with _warnings() as raised:
        adapted, report = _with_adapter(member, base, config, torch.float32)
        _check_places(member, report)
        logits = _logits(adapted, ids)
        model = adapted.merge_and_unload()
    merged = _logits(model, ids)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(parameter.to(stored.get(name, torch.float32)))
    told = [w for w in raised if not issubclass(w.category, DeprecationWarning | FutureWarning)]
    notes = dict.fromkeys(f"adapter: peft: {' '.join(str(warning.message).split())}" for warning in told)
    return _AsPeft(logits, merged, _logits(model, ids), list(notes))


@torch.inference_mode()
def _logits(model: Any, ids: Sequence[int]) -> torch.Tensor:
    device = next(model.parameters()).device
    return model(input_ids=torch.tensor([list(ids)], device=device), use_cache=False).logits[0].float().cpu()


def _ids(member: AdapterMember, config: PreTrainedConfig) -> list[int]:
    """Tokens to read: any, and those that the adapter trains."""
    trained = member.config.get("trainable_token_indices") or []
    listed = [i for part in trained.values() for i in part] if isinstance(trained, dict) else list(trained)
    known = [i for i in dict.fromkeys(listed) if isinstance(i, int) and 0 <= i < config.vocab_size]
    drawn = torch.randint(config.vocab_size, (READ,), generator=torch.Generator().manual_seed(0)).tolist()
    length = min(READ, getattr(config, "max_position_embeddings", None) or READ)
    return [*known[: length // 2], *drawn][:length]


def _check_places(member: AdapterMember, report: Any) -> None:
    missing = [name for name in report.missing_keys if not any(kind in name for kind in _SHARED)]
    advice = (
        "Merged in part, it would be another model: take the checkpoint that it was trained on as `path`, or correct "
        "the names of the tensors or target_modules in adapter_config.json"
    )
    if report.unexpected_keys:
        count, shown = _listed(report.unexpected_keys)
        raise InputError(
            f"the adapter {member.adapter} has {count} that find no place in {member.base}: {shown}. {advice}"
        )
    if missing:
        count, shown = _listed(missing)
        raise InputError(f"the adapter {member.adapter} lacks {count} that its config asks for: {shown}. {advice}")


def _listed(names: Sequence[str]) -> tuple[str, str]:
    """How many tensors, and the first of them as files name them."""
    plain = sorted(name.replace(".default", "") for name in names)
    return counted(len(plain), "tensor"), listed(plain, _LISTED)


def _check_vocabulary(member: AdapterMember, config: PreTrainedConfig) -> None:
    """Raise InputError if the adapter was trained after tokens were added to its base."""
    rows = config.vocab_size
    with safe_open(member.adapter / WEIGHTS, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            shape = file.get_slice(name).get_shape()
            if "embed_tokens" in name and "lora_embedding_A" in name:
                found = shape[-1]
            elif "lora_" not in name and name.endswith(".weight") and ("embed_tokens" in name or "lm_head" in name):
                found = shape[0]
            else:
                continue
            if found != rows and "token_adapter" not in name:
                raise InputError(
                    f"the adapter {member.adapter} was trained with {found:,} tokens, and {member.base} has {rows:,} "
                    f"({name}). Add the tokens to that checkpoint (model.resize_token_embeddings({found}), with the "
                    "adapter's tokenizer), and to every other member, and name the results"
                )


def _check_same(
    member: AdapterMember, config: PreTrainedConfig, made: Path, ids: Sequence[int], found: _AsPeft
) -> None:
    """Raise InputError if the merged checkpoint, as transformers loads it, isn't the model that peft computes."""
    own, _ = mended_config(made, {})
    saved = AutoModelForCausalLM.from_pretrained(made, config=own, dtype=torch.float32, trust_remote_code=False)
    logits = _logits(saved.eval(), ids)
    untied = config.tie_word_embeddings and not own.tie_word_embeddings
    if not torch.isfinite(found.logits).all():
        return  # said of the member's weights, whoever merged them
    allowed = EXACT * max(1.0, float(found.logits.abs().max()))
    rounding = TWICE * float((found.rounded - found.merged).abs().max())
    off = float((found.merged - found.logits).abs().max())
    if off <= allowed:
        off, allowed = float((logits - found.logits).abs().max()), allowed + rounding
    if off <= allowed and not untied:
        return
    layers = _embeddings_in(member) if config.tie_word_embeddings else []
    if layers:
        raise InputError(
            f"the adapter {member.adapter} trains {' and '.join(layers)}, and {member.base} ties its output layer to "
            "its embeddings (tie_word_embeddings: true): merged, both would change, which is another model than "
            "peft's. Untie every member first: store a copy of the embeddings as lm_head.weight and set "
            "tie_word_embeddings: false in config.json; or use an adapter without these layers"
        )
    raise InputError(
        f"the adapter {member.adapter}, merged into {member.base}, is another model than the one that peft computes "
        f"with it beside that checkpoint (logits differ by {off:.3g}, {allowed:.3g} allowed); use another adapter, or "
        "full weights that it was merged into"
    )


def _embeddings_in(member: AdapterMember) -> list[str]:
    """Embeddings and output layer, where the adapter trains them."""
    with safe_open(member.adapter / WEIGHTS, "pt") as file:
        names = list(file.keys())
    return [layer for layer in ("embed_tokens", "lm_head") if any(f".{layer}." in name for name in names)]
