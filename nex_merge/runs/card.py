"""The model card of an exported checkpoint, and its recipe as others can use it.

Members are named by hub id or by name: paths of this machine mean nothing elsewhere, and tell who one is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nex_merge.checkpoints.files import hub_id
from nex_merge.checkpoints.hub import licence_of
from nex_merge.engines.family import FamilyResident
from nex_merge.inert import markdown
from nex_merge.measures.registry import CONSENSUS, NEX, measure_title
from nex_merge.records import Estimate, MergeRecipe, TrialResult, Verdict
from nex_merge.runs.files import recipe_text
from nex_merge.runs.rounding import Rounded
from nex_merge.setup.families import Family
from nex_merge.wording import decimal

PUBLIC_RECIPE = "mergekit_config.yml"
_LIBRARIES = ("nex-merge", "mergekit", "transformers", "torch")


@dataclass(frozen=True)
class Source:
    """A folder that recipes name."""

    path: Path
    label: str  # the member's name; of an adapter's checkpoint, with `-base`
    name: str  # what a public recipe calls it

    @property
    def hub_id(self) -> str | None:
        return hub_id(self.path)


def model_card(
    resident: FamilyResident,
    recipe: MergeRecipe,
    about: str,
    rows: Sequence[str],
    sha256: str | None,
    needs: Sequence[str] = (),
    rounded: Rounded | None = None,
) -> str:
    """A Hugging Face model card: what was merged, how, and what the score rests on.

    `about`: which trial of which search it is. `rows`: lines of the table of figures. `sha256`: of the tensors that
    were scored. `needs`: why transformers 4 can't read the checkpoint. `rounded`: how its tensors differ from those.
    """
    from huggingface_hub import ModelCard, ModelCardData

    family = resident.family
    sources = sources_of(family)
    ids = sorted({source.hub_id for source in sources if source.hub_id is not None})
    front = ModelCardData(
        base_model=ids or None,
        base_model_relation="merge" if ids else None,
        library_name="transformers",
        tags=["mergekit", "merge", "nex-merge"],
    )
    stored = f"{resident.out_dtype}; they were" if rounded is None else f"{rounded.said}. Those were"
    lines = [
        f"# Merge of {markdown(', '.join(family.models))} ({recipe.method})",
        "",
        f"{about} with nex-merge over family {markdown(family.name)}, ranked without labels, and written by",
        "mergekit's method of the same name.",
        f"Weights are stored in {stored} scored computing in {str(resident.dtype)[6:]}.",
        *([f"Needs transformers 5 or newer: {'; '.join(needs)}."] if needs else []),
        "",
        "| what the ranking rests on | with the 95 % interval over prompts |",
        "|---|---|",
        *rows,
        "",
        f"Seed of the merge: {recipe.seed}. sha256 of the tensors{' that were scored' if rounded else ''}: `{sha256}`.",
        *([] if rounded is None else [f"sha256 of the tensors here: `{rounded.sha256}`."]),
        "",
        "```yaml",
        public_recipe(family, recipe, rounded is not None).rstrip(),
        "```",
        "",
        *_members(sources),
        "",
        *_claims(rounded),
        "",
        f"Written with {', '.join(f'{name} {version(name)}' for name in _LIBRARIES)}.",
        "",
    ]
    return str(ModelCard("\n".join(["---", front.to_yaml(), "---", *lines])))


def figures(result: TrialResult) -> list[str]:
    """The lines of a card's table: what a scored trial's rank rests on."""
    score = result.score
    consensus = _estimate(result.estimates.get(CONSENSUS.name), 3)
    lines = [f"| consensus: agreement with what all variants conclude | {consensus} |"]
    if result.answered < 1:
        lines.append(f"| share of the prompts that it answered ({result.state}) | {result.answered:.2f} |")
    if score is not None:  # captured
        lines += [
            f"| NEX (arXiv 2602.05805), calibration {score.calibration} | {_estimate(result.estimates[NEX.name])} |",
            f"| responses scored | {score.scored} of {score.responses} |",
            f"| responses that earned credit | {score.credited} |",
            f"| cycles | {score.cycles} |",
        ]
    lines += [
        f"| mean tokens of a response | {decimal(result.value('mean_tokens'), '.1f')} |",
        f"| truncated | {decimal(result.value('truncated'))} |",
    ]
    if score is not None:
        lines.append(f"| mean token entropy, nats | {decimal(result.value('entropy'), '.6f')} |")
    return lines


def verdict_line(measure: str, verdict: Verdict | None, standing: str = "") -> str:
    """The line of a card's table that says how far a ranking by this measure can be trusted.

    `standing`: whether this is the merge that the run recommends, in words.
    """
    parts = ["-"] if verdict is None else [verdict.level, *verdict.reasons]
    told = "; ".join([*parts, standing] if standing else parts)
    return f"| verdict on the ranking by {measure_title(measure)} | {markdown(told)} |"


def _estimate(found: Estimate | None, digits: int = 6) -> str:
    value = decimal(None if found is None else found.value, f".{digits}f")
    if found is None or found.low is None or found.high is None:
        return value
    return f"{value} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def public_recipe(family: Family, recipe: MergeRecipe, is_rounded: bool = False) -> str:
    """A recipe as a file that names the members as the card does: by hub id and revision, or by name.

    `is_rounded`: whether the checkpoint's tensors are rounded from those that the recipe merges.
    """
    sources = sources_of(family)
    names = {str(source.path): source.name for source in sources}

    def renamed(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {key: renamed(value) for key, value in part.items()}
        if isinstance(part, list | tuple):
            return [renamed(value) for value in part]
        if isinstance(part, str):  # a folder, or BASE+ADAPTER
            return "+".join(names.get(model, model) for model in part.split("+"))
        return part

    # For a card of its own, mergekit would ask the hub whether it has models by the folders' names.
    options = "" if all(source.hub_id for source in sources) else " --no-write-model-card"
    gives = "The tensors that were scored" if is_rounded else "The same tensors"
    return recipe_text(replace(recipe, config=renamed(recipe.config)), PUBLIC_RECIPE, options, gives)


def sources_of(family: Family) -> list[Source]:
    """The folders that recipes name, each once, with names of their own.

    Of a hub's, the id and the revision; of others, the folder's name, or, where folders share one, as checkpoints of
    two trainings are often both `checkpoint-500`, the member's.
    """
    labels: dict[Path, str] = {}
    for name, path in {**family.folders, **{name: member.adapter for name, member in family.adapters.items()}}.items():
        labels.setdefault(path, name)
    for name, member in family.adapters.items():
        labels.setdefault(member.base, f"{name}-base")
    names = [f"{public_name(path)}@{path.name}" if hub_id(path) else path.name for path in labels]
    shared = {name for name in names if names.count(name) > 1}
    found = [label if name in shared else name for label, name in zip(labels.values(), names, strict=True)]
    if len({*found}) < len(found):
        found = [*labels.values()]
    return [Source(path, label, name) for (path, label), name in zip(labels.items(), found, strict=True)]


def _members(sources: Sequence[Source]) -> list[str]:
    """What the names in a card's recipe stand for, and what is known of the members' licences."""
    folders = [_code(source.name) for source in sources if source.hub_id is None]
    licences = {source: licence_of(source.path) for source in sources}
    lines = ["## Members", "", "| in the recipe | what it is | licence that its model card names |", "|---|---|---|"]
    for source in sources:
        what = "a folder" if source.hub_id is None else "on the Hugging Face hub"
        licence = markdown(licences[source] or "unknown")
        lines.append(f"| {_code(source.name)} | {markdown(source.label)}, {what} | {licence} |")
    lines += ["", _licences([*licences.values()])]
    if folders:
        several = len(folders) > 1
        lines.append(
            f"With {'folders of these names' if several else 'a folder of that name'} in the working directory "
            f"({', '.join(folders)}), the command in the recipe's first line merges the same tensors."
        )
    return lines


def _licences(found: Sequence[str | None]) -> str:
    """What is known of the members' licences, and no judgement."""
    named = sorted({licence for licence in found if licence is not None})
    told = markdown(", ".join(named))
    if len(named) > 1:
        known = f"The members name different licences: {told}."
    elif named and None not in found:
        known = f"All members name the licence {told}."
    else:
        known = f"The licence named is {told}." if named else "No member's licence is known."
    if named and None in found:
        known = f"{known[:-1]}; that of other members is not known."
    return f"{known} Check whether they allow this merge and its use; this card names no licence for it."


def _claims(rounded: Rounded | None) -> list[str]:
    """What was shown of the checkpoint, and what was not."""
    tensors = "are" if rounded is None else "have the values of" if rounded.is_exact else "are rounded from"
    before = ", before they were rounded" if rounded is not None and not rounded.is_exact else ""
    return [
        "## What is claimed",
        "",
        f"Its tensors {tensors} those that were scored, compared bit for bit. transformers loaded it, and gave stored",
        f"responses again{before}. The figures are those of the search on its own prompts; no known answer had a part",
        "in them.",
        "",
        "Not claimed: that it is more accurate than its members on any benchmark. The verdict says how far the ranking",
        "can be trusted. Safety, bias and other uses than the search's prompts were not looked at.",
    ]


def public_name(path: Path) -> str:
    """A hub id where the folder is a hub snapshot, else the folder's own name."""
    return hub_id(path) or path.name


def _code(text: str) -> str:
    return markdown(text) if "`" in text or "|" in text or not text.isprintable() else f"`{text}`"
