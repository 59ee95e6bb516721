"""Shows, before the first trial, that what will be scored is what will be exported, and that it can be exported.

1. All weights are looked at once; what was dropped or mended in the members' files is said.
2. Base and every parent, merged into the resident model, give the logits of their own checkpoints in transformers;
   members with an adapter those of peft.
3. Every method of the search space merges the members with equal weights.
4. Such a merge's config, generation config, tokenizer and card are written, read back, and decode as the search does.

One checkpoint is loaded beside the resident model at a time. What was found is kept by the family's fingerprint, so
that the next search over the same files pays nothing.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from nex_merge.engines.comparison import largest_difference, tolerance
from nex_merge.engines.contracts import Engine
from nex_merge.engines.family import FamilyResident
from nex_merge.engines.resident import ModelResident
from nex_merge.engines.saving import decoded, write_settings
from nex_merge.errors import InputError, TrialError
from nex_merge.merging import adapter_logits, adapter_notes, member_notes, survey
from nex_merge.records import MergeRecipe, Prompt, SearchSpace
from nex_merge.runs.card import model_card
from nex_merge.setup.config import GenerationConfig as Decoding
from nex_merge.setup.resolve import ResolvedConfig
from nex_merge.study.proposal import equal_weights, passthrough, propose
from nex_merge.study.recipe_list import PARAMETER
from nex_merge.study.rehearsal_cache import Rehearsal, keep, place_of, read

# Tokens decoded to compare an export with the search.
DECODED = 32
# Tokens at the end of a text whose logits are compared: of all, they would take gigabytes.
READ = 256

# Token ids of prompts: the first, the longest and the shortest.
Texts = Sequence[Sequence[int]]


def rehearse(
    engine: Engine,
    resolved: ResolvedConfig,
    space: SearchSpace,
    recipes: Mapping[str, MergeRecipe] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Rehearsal:
    """Rehearse a search with an engine for its family. The resident weights are arbitrary afterwards.

    `recipes`: those to rank instead of searching the space; the first of every method is merged. `note` is told before
    work that takes a while.

    Raises InputError, naming member and cause, where a member would not be scored as what it is, a method can't merge
    the members, or an export would not load and answer as the search's merges do.
    """
    resident = engine.family_weights
    assert resident is not None, "an engine of a family"
    place = place_of(engine, resident, resolved, space, DECODED)
    if (known := read(place)) is not None:
        return known
    note(f"rehearsing with {', '.join(resident.family.folders)}, one after another")
    began = time.perf_counter()
    encoded = engine.encode(resolved.prompts, resolved.config.prompts, 1)
    # Windows and scaled positions show at the longest, and short ones may have rotary frequencies of their own.
    texts = list(dict.fromkeys(map(tuple, [encoded[0], max(encoded, key=len), min(encoded, key=len)])))
    folders = resident.family.folders
    # Both name an expert that is the base.
    said = [*member_notes(folders), *adapter_notes(resident.family.adapters, folders)]
    notes = list(dict.fromkeys([*said, *survey(folders, resident.out_dtype, space.methods)]))
    off = 0.0
    for name in folders:
        found, said = _check_member(engine, resident, name, texts)
        off, notes = max(off, found), notes + said
    merges = sample_merges(resident, space, recipes)
    for recipe in reversed(merges):  # the first method's stays loaded
        _merge(engine, resident, recipe)
    _check_export(engine, resident, resolved, merges[0], resolved.prompts[0], texts)
    done = Rehearsal(tuple(notes), time.perf_counter() - began, off)
    keep(place, done)
    return done


def _check_member(engine: Engine, resident: FamilyResident, name: str, texts: Texts) -> tuple[float, list[str]]:
    """Compare a resident member with its checkpoint; the difference of logits, and notes."""
    folder = resident.family.folders[name]
    try:
        kind = "base" if name == "base" else "parent"
        engine.load(passthrough(kind, name, resident.family.references[name], resident.out_dtype))
    except TrialError as error:
        raise InputError(f"{name}: {folder}: {error}") from None
    found = _logits(resident, texts)
    allowed = tolerance(resident.dtype, found)
    loaded, problems = resident.checkpoint(folder)
    expected = _logits(loaded, texts)
    off = largest_difference(expected, found)
    if not np.isfinite(expected).all():
        raise InputError(
            f"{name}: {folder}: its logits are not finite, also as transformers loads it; set runtime.dtype to float32 "
            "if they overflow in a smaller one, else use another checkpoint"
        )
    if not off <= allowed:
        causes = [*problems, *resident.differences(loaded)]
        raise InputError(
            f"{name}: would not be scored as what it is: transformers loads {folder} with other logits (difference "
            f"{off:.3g}, {allowed:.3g} allowed). {'; '.join(causes) or 'The cause is unknown'}. Save the member again "
            "with transformers' save_pretrained, or leave it out (models)"
        )
    del loaded
    if name in resident.family.adapters:
        _check_adapter(resident, name, texts, found)
    return off, _under_the_donors_config(resident, name, texts, found, allowed)


def _logits(resident: ModelResident, texts: Texts) -> np.ndarray:
    """The logits after the last tokens of all texts, float32 [tokens, vocabulary]."""
    return np.concatenate([resident.logits(ids, READ) for ids in texts])


def _check_adapter(resident: FamilyResident, name: str, texts: Texts, found: np.ndarray) -> None:
    """Compare a resident member with its adapter beside its base, as peft computes them.

    Merged weights are rounded once more; before that, the two are held against each other when an adapter is merged.
    """
    member = resident.family.adapters[name]
    expected = adapter_logits(member, texts, READ, resident.device, resident.dtype).numpy()
    allowed = 2 * (tolerance(resident.dtype, expected) + tolerance(resident.stored_dtype, expected))
    off = largest_difference(expected, found)
    if not off <= allowed:
        raise InputError(
            f"{name}: would not be scored as what it is: peft gives other logits for {member.adapter} on {member.base} "
            f"(difference {off:.3g}, {allowed:.3g} allowed). Use another adapter"
        )


def _under_the_donors_config(
    resident: FamilyResident, name: str, texts: Texts, own: np.ndarray, allowed: float
) -> list[str]:
    """What a member's config changes. Raises InputError where it matters and the family names no donor."""
    donor, differing = resident.family.donor, resident.differing(name)
    if not differing:
        return []
    with resident.under_the_donors_config():
        off = largest_difference(own, _logits(resident, texts))
    shown = ", ".join(f"{key} {a!r} ({donor}: {b!r})" for key, (a, b) in differing.items())
    if off <= allowed:
        return [
            f"{name}: its config differs, without changing its logits for the first, longest and shortest prompts: "
            f"{shown}"
        ]
    if not resident.family.donor_named:
        raise InputError(
            f"{name}: its config makes it another model than {donor}'s would: {shown}. Merges can use only one of the "
            f"two; choose the member in the family, for example `config: {name}`"
        )
    return [f"{name}: scored under its own config, merges under that of {donor}: {shown}"]


class _Given:
    """Suggests the values that it was given."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def suggest_float(self, name: str, low: float, high: float, **kwargs: Any) -> float:
        return self._values[name]

    def suggest_int(self, name: str, low: int, high: int, **kwargs: Any) -> int:
        return self._values[name]

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._values[name]


def sample_merges(
    resident: FamilyResident, space: SearchSpace, recipes: Mapping[str, MergeRecipe] | None
) -> list[MergeRecipe]:
    """A merge by every method: the first of the given recipes by it, or equal weights."""
    return _first_of_each_method(recipes) if recipes else _equal_merges(resident, space)


def _equal_merges(resident: FamilyResident, space: SearchSpace) -> list[MergeRecipe]:
    """The equal-weights merge of every method."""
    family, recipes = resident.family, []
    for method in space.methods:
        alone = replace(space, methods=(method,))
        given = _Given(equal_weights(alone, family.models))
        recipes.append(propose(alone, family.references, resident.out_dtype, given, 0))
    return recipes


def _first_of_each_method(recipes: Mapping[str, MergeRecipe]) -> list[MergeRecipe]:
    firsts: dict[str, MergeRecipe] = {}
    for recipe in recipes.values():
        firsts.setdefault(recipe.method, recipe)
    return list(firsts.values())


def _merge(engine: Engine, resident: FamilyResident, recipe: MergeRecipe) -> None:
    try:
        engine.load(recipe)
    except TrialError as error:
        if PARAMETER in recipe.parameters:
            raise InputError(f"study.recipes: {recipe.parameters[PARAMETER]}: {error}. Correct or remove it") from None
        wider = " (dtype: bfloat16 has room for larger values)" if resident.out_dtype == "float16" else ""
        raise InputError(
            f"search_space: {recipe.method} cannot merge {', '.join(resident.family.models)}: {error}. Remove the "
            f"method, or change the family{wider}"
        ) from None


def _check_export(
    engine: Engine,
    resident: FamilyResident,
    resolved: ResolvedConfig,
    recipe: MergeRecipe,
    prompt: Prompt,
    texts: Texts,
) -> None:
    """Write what an export holds beside the loaded merge's weights, read it back, and decode with it."""
    with tempfile.TemporaryDirectory(prefix="nex-merge-") as name:
        folder = Path(name)
        try:
            write_settings(resident, recipe, folder)
            (folder / "README.md").write_text(model_card(resident, recipe, "A merge", [], None), encoding="utf-8")
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            generation = GenerationConfig.from_pretrained(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{_donor(resident)}: an export would fail: {' '.join(str(error).split())}. Correct the file, "
                "or take config and tokenizer from another member (`config:` in the family)"
            ) from None
    ids = texts[0]
    exported = resident.beside(config, generation, tokenizer)
    again = exported.encode([prompt], resolved.config.prompts, 1)[0]
    if list(again) != list(ids):
        raise InputError(
            f"{_donor(resident)}: an export's tokenizer would encode the first prompt differently; save the "
            "tokenizer again with transformers' save_pretrained, or take config and tokenizer from another member "
            "(`config:` in the family)"
        )
    logits = _logits(resident, texts)
    off = largest_difference(logits, _logits(exported, texts))
    if not off <= tolerance(resident.dtype, logits):
        raise InputError(
            f"{_donor(resident)}: an export's config would give other logits than the search (difference {off:.3g}); "
            "take it from another member (`config:` in the family)"
        )
    tokens = min(DECODED, resolved.config.generation.max_new_tokens)
    # With the search's batches: an engine may be built for them.
    decoding = Decoding(max_new_tokens=tokens, batch_tokens=resolved.config.generation.batch_tokens)
    searched = list(engine.answer([ids], decoding)[0].token_ids)
    if resident.dtype == torch.float32 and decoded(exported, ids, tokens) != searched:
        raise InputError(
            f"{_donor(resident)}: with an export's generation config, transformers would decode greedily otherwise "
            "than the search; remove what changes it from generation_config.json"
        )


def _donor(resident: FamilyResident) -> str:
    donor = resident.family.donor
    return f"{donor}: {resident.family.folders[donor]}"
