"""What an exported checkpoint holds beside its weights: config, generation config, tokenizer, and model card."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import yaml

from nex_merge.engines.transformers import FamilyEngine
from nex_merge.generation import end_tokens
from nex_merge.measures.registry import measure_title
from nex_merge.merging import generation_config
from nex_merge.records import MergeRecipe, TrialResult, Verdict
from nex_merge.setup.families import Family, plain_folders


def write_settings(engine: FamilyEngine, recipe: MergeRecipe, folder: Path) -> None:
    """Write the config, generation config and tokenizer of a variant; `recipe`: the one that is loaded."""
    config = copy.deepcopy(engine.model.config)
    config.architectures = [type(engine.model).__name__]
    config.dtype = getattr(torch, engine.out_dtype)
    config.save_pretrained(folder)
    generation = generation_config(engine.family.folders[engine.merger.member_of(recipe)])
    generation.eos_token_id = sorted(end_tokens(engine.model, engine.tokenizer))
    generation.save_pretrained(folder)
    engine.tokenizer.save_pretrained(folder)


def model_card(
    engine: FamilyEngine, recipe: MergeRecipe, text: str, about: str, rows: Sequence[str], sha256: str | None
) -> str:
    """A Hugging Face model card: what was merged, how, and what the score rests on.

    `text`: the recipe as a file. `about`: which trial of which search it is. `rows`: lines of the table of figures.
    """
    family = engine.family
    names = public_names(family)
    front = {
        "base_model": sorted(set(names.values())),
        "library_name": "transformers",
        "tags": ["mergekit", "merge", "nex-merge"],
    }
    # Longest first: one folder's path may begin with another's.
    for path, name in sorted(_paths(family, names), key=lambda item: -len(item[0])):
        text = text.replace(path, name)
    return "\n".join(
        [
            "---",
            yaml.safe_dump(front, sort_keys=False).rstrip(),
            "---",
            f"# Merge of {', '.join(family.models)} ({recipe.method})",
            "",
            f"{about} with nex-merge over family {family.name}, ranked without labels, and written by mergekit's",
            "method of the same name.",
            f"Weights are stored in {engine.out_dtype}; they were scored computing in {str(engine.dtype)[6:]}.",
            "",
            "| what the ranking rests on | |",
            "|---|---|",
            *rows,
            "",
            f"Seed of the merge: {recipe.seed}. sha256 of the tensors: `{sha256}`.",
            "",
            "```yaml",
            text.rstrip(),
            "```",
            "",
        ]
    )


def figures(result: TrialResult) -> list[str]:
    """The lines of a card's table: what a scored trial's rank rests on."""
    score, nex = result.score, result.estimates["nex"]
    lines = [f"| consensus: agreement with what all variants conclude | {_number(result.value('consensus'), 3)} |"]
    if result.answered < 1:
        lines.append(f"| share of the prompts that it answered ({result.state}) | {result.answered:.2f} |")
    if score is not None:  # captured
        lines += [
            f"| NEX (arXiv 2602.05805), calibration {score.calibration} | {_number(nex.value)} |",
            f"| its 95 % interval over prompts | {_number(nex.low)} to {_number(nex.high)} |",
            f"| responses scored | {score.scored} of {score.responses} |",
            f"| responses that earned credit | {score.credited} |",
            f"| cycles | {score.cycles} |",
        ]
    lines += [
        f"| mean tokens of a response | {_number(result.value('mean_tokens'), 1)} |",
        f"| truncated | {_number(result.value('truncated'), 3)} |",
    ]
    if score is not None:
        lines.append(f"| mean token entropy, nats | {_number(result.value('entropy'))} |")
    return lines


def verdict_line(measure: str, verdict: Verdict | None, standing: str = "") -> str:
    """The line of a card's table that says how far a ranking by this measure can be trusted.

    `standing`: whether this is the merge that the run recommends, in words.
    """
    parts = ["-"] if verdict is None else [verdict.level, *verdict.reasons]
    told = "; ".join([*parts, standing] if standing else parts)
    return f"| verdict on the ranking by {measure_title(measure)} | {told.replace('|', '/')} |"


def _number(value: float | None, digits: int = 6) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def public_names(family: Family) -> Mapping[str, str]:
    """What a card calls each member: its hub id, else its folder's name, else, where folders share one, the family's.

    Paths of this machine mean nothing elsewhere, and checkpoints of two trainings are often both `checkpoint-500`.
    """
    places = {**family.folders, **{name: member.adapter for name, member in family.adapters.items()}}
    names = {name: _public_name(path) for name, path in places.items()}
    shared = {name for name, found in names.items() if list(names.values()).count(found) > 1}
    return {name: name if name in shared else found for name, found in names.items()}


def _paths(family: Family, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """The paths that recipes name, with what a card calls them."""
    paths = [(str(path), names[name]) for name, path in plain_folders(family).items()]
    for name, member in family.adapters.items():
        paths += [(str(member.adapter), names[name]), (str(member.base), _public_name(member.base))]
    return paths


def _public_name(path: Path) -> str:
    """A hub id where the folder is a hub snapshot, else the folder's own name."""
    for part in path.parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/")
    return path.name
