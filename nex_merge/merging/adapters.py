"""LoRA adapters as members: merged once into their base by mergekit, with the bits that a recipe naming both gives."""

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

from nex_merge.checkpoints.adapters import AdapterMember
from nex_merge.checkpoints.files import TOKENIZER_FILES
from nex_merge.errors import InputError
from nex_merge.merging.recipes import merge_adapter


def merge_adapters(adapters: Mapping[str, AdapterMember], folders: Mapping[str, Path]) -> None:
    """Make the checkpoints of a family's adapters in `folders`, unless an earlier run has.

    Raises InputError, naming the member, if an adapter can't be merged.
    """
    for name, member in adapters.items():
        if not folders[name].is_dir():
            _merge(name, member, folders[name])


def _merge(name: str, member: AdapterMember, out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".adapter-", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out.parent}: the merged adapter cannot be kept here: {error.strerror}") from None
    try:
        logging.getLogger("peft").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names that mergekit and peft use and transformers will drop
            folder = merge_adapter(member.reference, work)
        for file in TOKENIZER_FILES:
            source = next((f / file for f in (member.adapter, member.base) if (f / file).is_file()), None)
            if source is not None:
                shutil.copy(source, folder / file)
        if (member.base / "generation_config.json").is_file():
            shutil.copy(member.base / "generation_config.json", folder / "generation_config.json")
        # Another process may have made it meanwhile.
        if not out.exists():
            os.replace(folder, out)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"{name}: the adapter {member.adapter} cannot be merged into {member.base}: {reason}. Is that the "
            "checkpoint that it was trained on?"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
