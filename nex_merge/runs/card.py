"""The model card of an exported checkpoint, and its recipe as others can use it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from nex_merge.engines.family import FamilyResident
from nex_merge.inert import markdown
from nex_merge.measures.registry import CONSENSUS, NEX, measure_title
from nex_merge.records import MergeRecipe, TrialResult, Verdict
from nex_merge.runs.files import recipe_text
from nex_merge.setup.families import Family

PUBLIC_RECIPE = "mergekit_config.yml"


def model_card(
    resident: FamilyResident,
    recipe: MergeRecipe,
    about: str,
    rows: Sequence[str],
    sha256: str | None,
    needs: Sequence[str] = (),
) -> str:
    """A Hugging Face model card: what was merged, how, and what the score rests on.

    `about`: which trial of which search it is. `rows`: lines of the table of figures. `needs`: why transformers 4 can't
    read the checkpoint.
    """
    family = resident.family
    members = {*public_names(family).values()}
    front = {
        "base_model": sorted(members),
        "library_name": "transformers",
        "tags": ["mergekit", "merge", "nex-merge"],
    }
    return "\n".join(
        [
            "---",
            yaml.safe_dump(front, sort_keys=False).rstrip(),
            "---",
            f"# Merge of {markdown(', '.join(family.models))} ({recipe.method})",
            "",
            f"{about} with nex-merge over family {markdown(family.name)}, ranked without labels, and written by",
            "mergekit's method of the same name.",
            f"Weights are stored in {resident.out_dtype}; they were scored computing in {str(resident.dtype)[6:]}.",
            *([f"Needs transformers 5 or newer: {'; '.join(needs)}."] if needs else []),
            "",
            "| what the ranking rests on | |",
            "|---|---|",
            *rows,
            "",
            f"Seed of the merge: {recipe.seed}. sha256 of the tensors: `{sha256}`.",
            "",
            "```yaml",
            public_recipe(family, recipe).rstrip(),
            "```",
            "",
            *_explained(family),
            "",
        ]
    )


def figures(result: TrialResult) -> list[str]:
    """The lines of a card's table: what a scored trial's rank rests on."""
    score, nex = result.score, result.estimates[NEX.name]
    lines = [f"| consensus: agreement with what all variants conclude | {_number(result.value(CONSENSUS.name), 3)} |"]
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
    return f"| verdict on the ranking by {measure_title(measure)} | {markdown(told)} |"


def _number(value: float | None, digits: int = 6) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def public_recipe(family: Family, recipe: MergeRecipe) -> str:
    """A recipe as a file that names the members as the card does; see `public_names`."""
    places = {str(path): name for path, name in _places(family).items()}

    def renamed(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {key: renamed(value) for key, value in part.items()}
        if isinstance(part, list | tuple):
            return [renamed(value) for value in part]
        if isinstance(part, str):  # a folder, or BASE+ADAPTER
            return "+".join(places.get(model, model) for model in part.split("+"))
        return part

    # For a card of its own, mergekit would ask the hub whether it has models by the folders' names.
    options = "" if all("/" in name for name in places.values()) else " --no-write-model-card"
    return recipe_text(replace(recipe, config=renamed(recipe.config)), PUBLIC_RECIPE, options)


def public_names(family: Family) -> Mapping[str, str]:
    """What a card calls each member: its hub id, else its folder's name, else, where folders share one, the family's.

    Paths of this machine mean nothing elsewhere, and checkpoints of two trainings are often both `checkpoint-500`.
    """
    names = _places(family)
    return {name: names[path] for name, path in _own_folders(family).items()}


def _own_folders(family: Family) -> dict[str, Path]:
    return {**family.folders, **{name: member.adapter for name, member in family.adapters.items()}}


def _places(family: Family) -> dict[Path, str]:
    """The folders that recipes name, with what a card calls them: every name once."""
    labels: dict[Path, str] = {}
    for name, path in _own_folders(family).items():
        labels.setdefault(path, name)
    for name, member in family.adapters.items():
        labels.setdefault(member.base, f"{name}-base")
    names = [public_name(path) for path in labels]
    shared = {name for name in names if names.count(name) > 1}
    found = {path: label if name in shared else name for (path, label), name in zip(labels.items(), names, strict=True)}
    return found if len({*found.values()}) == len(found) else labels


def _explained(family: Family) -> list[str]:
    """What the names in a card's recipe stand for."""
    lines, folders = [], []
    for path, name in sorted(_places(family).items(), key=lambda item: item[1]):
        if "/" in name:
            at = f", revision `{path.name}`" if path.parent.name == "snapshots" else ""
            lines.append(f"`{name}` is the model on the Hugging Face hub{at}.")
        else:
            folders.append(f"`{name}`")
    if folders:
        several = len(folders) > 1
        lines += [
            f"{', '.join(folders)} {'stand for checkpoints' if several else 'stands for a checkpoint'} that the search "
            f"was given as {'folders' if several else 'a folder'}.",
            f"With {'folders of these names' if several else 'a folder of that name'} in the working directory, the "
            "command in the recipe's first line merges the same tensors.",
        ]
    return lines


def public_name(path: Path) -> str:
    """A hub id where the folder is a hub snapshot, else the folder's own name."""
    for part in path.parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/")
    return path.name
