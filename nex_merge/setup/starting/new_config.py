"""What a search begins with → a configuration that a person reads and changes, with a reason for every choice."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nex_merge.checkpoints.files import read_json
from nex_merge.checkpoints.tokenizers import has_chat_template
from nex_merge.setup.config import GenerationConfig, find_file, merge_mappings
from nex_merge.setup.families import check_place, defaults_of
from nex_merge.setup.schema import BESIDE
from nex_merge.setup.starting.around import Around
from nex_merge.setup.starting.commented_yaml import Key, comment_lines, written
from nex_merge.setup.starting.from_mergekit import Plan
from nex_merge.setup.starting.recipe_values import Location
from nex_merge.wording import counted

_DEFAULT_TOKENS: int = GenerationConfig().max_new_tokens


@dataclass(frozen=True)
class Member:
    """What the small files of a member say; None: it is not on this machine, or they don't say."""

    context: int | None  # tokens
    chat_template: bool | None


def look_at(plan: Plan, source: str) -> dict[str, Member]:
    """What the members say that are folders here.

    `source` begins messages. Raises InputError if one is neither a folder nor a hub id, or a file of it cannot be read.
    """
    return {name: _member(place, f"{source}: {name}") for name, place in {"base": plan.base, **plan.models}.items()}


def _member(place: Location, source: str) -> Member:
    path = place if isinstance(place, str) else place["path"]
    if path == "base":  # of an adapter: the family's base, which is looked at itself
        return Member(None, None)
    check_place(path, source)
    folder = find_file(path)
    if folder is None or not (folder / "config.json").is_file():
        return Member(None, None)
    config = read_json(folder / "config.json")
    text = config.get("text_config")
    context = (text if isinstance(text, dict) else config).get("max_position_embeddings")
    return Member(context if isinstance(context, int) else None, has_chat_template(folder))


def new_settings(
    plan: Plan, around: Around, prompts: Mapping[str, Any], trials: int | None, output: str, source: str
) -> tuple[dict[str, Any], dict[Key, str]]:
    """The settings of a new configuration, and the reasons for them, by key. `source`: see `look_at`."""
    comments: dict[Key, str] = {}
    found = look_at(plan, source)
    donor = _donor(plan, found, comments)
    family: dict[str, Any] = {"base": plan.base, "models": dict(plan.models)}
    family |= {key: value for key, value in (("config", donor), ("dtype", plan.dtype)) if value is not None}
    if plan.dtype is not None:
        comments["family", "dtype"] = "what merges are stored in, as given"
    for name, why in around.why.items():
        comments["search_space", "parameters", name] = why
    comments["search_space",] = f"{counted(around.searched, 'value')} to search; `nex-merge methods` lists the methods"
    defaults = next((given for place in (plan.base, *plan.models.values()) if (given := _defaults(place))), {})
    asked = dict(prompts)
    if plan.chat_template is False or (found[donor or "base"].chat_template is False):
        asked["chat_template"] = False
        comments["prompts", "chat_template"] = (
            "as given: prompts are passed as they are" if plan.chat_template is False else "no member has a template"
        )
    generation = {"max_new_tokens": _tokens(found, defaults.get("generation", {}), comments)}
    study: dict[str, Any] = {"objective": "consensus", "trials": _trials(around, trials, comments)}
    comments["study", "objective"] = "needs no labels, but answers that end in a conclusion; see `nex-merge measures`"
    if around.guess is not None:
        study["guesses"] = [dict(around.guess)]
        comments["study", "guesses"] = "the values given, tried right after equal weights (trial 0)"
    activations = {**defaults.get("activations", {}), "capture": "none"}
    comments["activations", "capture"] = "consensus is read from answers; all: NEX as well, with a second pass"
    settings = {
        "family": family,
        "search_space": dict(around.space),
        "prompts": asked,
        "generation": merge_mappings(defaults.get("generation", {}), generation),
        "activations": activations,
        "study": study,
        "output": output,
    }
    return settings, comments


def _donor(plan: Plan, found: Mapping[str, Member], comments: dict[Key, str]) -> str | None:
    """The member that gives config and tokenizer; None: the base, which needs no naming."""
    if plan.donor is not None:
        comments["family", "config"] = "whose config and tokenizer merges take, as given"
        return plan.donor
    if found["base"].chat_template is False and plan.chat_template is not False:
        for name in plan.models:
            if found[name].chat_template:
                comments["family", "config"] = "whose config and tokenizer merges take: the base has no chat template"
                return name
    return None


def _defaults(place: Location) -> dict[str, Any]:
    return defaults_of(place if isinstance(place, str) else place["path"])[0]


def _tokens(found: Mapping[str, Member], defaults: Mapping[str, Any], comments: dict[Key, str]) -> int:
    contexts = [member.context for member in found.values() if member.context is not None]
    wanted = defaults.get("max_new_tokens", _DEFAULT_TOKENS)
    most = min(contexts) // 2 if contexts else wanted
    if contexts:
        why = f"the members' context is {min(contexts)} tokens, of which prompts need some"
    else:
        why = "no member is here to say what context it has"
    comments["generation", "max_new_tokens"] = f"{why}; raise it if `truncated` is above 0.1"
    return max(1, min(wanted, most))


def _trials(around: Around, trials: int | None, comments: dict[Key, str]) -> int:
    if around.searched == 0:
        comments["study", "trials"] = "the method has no values to search: one merge, unless `methods` names others"
        return 1 if trials is None else trials
    comments["study", "trials"] = "merges to try, besides base and models"
    return 40 if trials is None else trials


def file_text(
    settings: Mapping[str, Any], comments: Mapping[Key, str], source: str | None, plan: Plan, dropped: list[str]
) -> str:
    """The whole file. `source`: the file that it was made from; None: from answers."""
    head = [f"# yaml-language-server: $schema={BESIDE}"]
    made = f"`nex-merge init` from {source}" if source else "`nex-merge init`"
    head += comment_lines(f"Made by {made}. Relative paths count from the folder that nex-merge is started in.")
    for title, lines in (("Carried over with a difference:", plan.carried), ("Not carried over:", dropped)):
        if lines:
            head += [f"# {title}", *(text for line in lines for text in comment_lines(f"- {line}"))]
    return "\n".join(head) + "\n" + written(settings, comments)


def schema_path(out: Path) -> Path:
    """Where the schema of a configuration lies that its first line names."""
    return out.parent / BESIDE
