"""Whether a configuration is that of a run, and what changed, in the keys and files that the user wrote.

A family is its weights and settings, not the folders that they are in: one that was moved is the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nex_merge.setup.resolve import ResolvedConfig

Key = tuple[str, ...]
Change = tuple[Key, Any, Any]
# Keys that may differ when a run is resumed.
_FREE = (("study", "trials"), ("study", "timeout"), ("study", "max_tokens"), ("output",),
         ("runtime", "workers"), ("runtime", "devices"), ("runtime", "cluster"),
         ("tracking", "trackio"), ("tracking", "mlflow"))  # fmt: skip
# Mappings whose order says something: the first objective leads, and the study's values are in this order.
_ORDERED = (("study", "objectives"),)
# Parts of `resolved` that are compared elsewhere, or not.
_ASIDE = ("versions", "places", "recipes")


def changes(previous: Mapping[str, Any], resolved: ResolvedConfig) -> list[str]:
    """What differs between a run's configuration, `resolved` included, and another, a line each; none if nothing does.

    Entries that an older version did not record can't be compared.
    """
    saved, current = previous["resolved"], resolved.resolved
    comparable = {name: value for name, value in current.items() if name in saved and name not in _ASIDE}
    was = {**previous, "resolved": {name: saved[name] for name in comparable}}
    now = {**resolved.config.model_dump(), "resolved": comparable}
    members = [[name for name in part.get("checkpoints", {}) if name != "base"] for part in (saved, current)]
    found: list[Change] = list(differences(was, now))
    if "family" in saved:  # as it was read, whatever its name and its file
        found = [change for change in found if change[0][0] != "family"]
    if "checkpoints" in saved:
        found = [change for change in found if not _is_explained(change[0], members, saved, current)]
        if members[0] != members[1]:
            key = ("models",) if previous["models"] or resolved.config.models else ("family", "models")
            found = [*(change for change in found if change[0][0] != "models"), (key, members[0], members[1])]
    if "recipes" in saved:
        found += differences({"resolved": {"recipes": _named(saved)}}, {"resolved": {"recipes": _named(current)}})
    return list(dict.fromkeys(_in_words(*change, resolved) for change in found))


def _is_same(name: str, saved: Mapping[str, Any], current: Mapping[str, Any]) -> bool:
    """Whether a member has the weights and the settings that it had, wherever it is now."""
    parts = ["checkpoints", *(["settings"] if "settings" in saved else [])]  # version 0.1.0 has none of these
    others = {place for item, places in saved.get("places", {}).items() if item != name for place in places}
    if not others.isdisjoint(current["places"].get(name, ())):
        return False  # recipes of the run mean another member by that place
    return all(saved[part].get(name) == current[part].get(name) for part in parts)


def _is_explained(
    key: Key, members: Sequence[Sequence[str]], saved: Mapping[str, Any], current: Mapping[str, Any]
) -> bool:
    """Whether a difference is of no importance, or another line says it."""
    section, *rest = key[1:] if key[0] == "resolved" else key
    if (section, *rest[:1]) == ("family", "defaults"):
        return True  # compared as settings
    if section not in ("family", "checkpoints", "settings") or not rest or rest[0] in ("config", "dtype"):
        return False
    *_, name = rest[:1] if section != "family" or rest[0] == "base" else rest[:2]
    if _is_same(name, saved, current) or (name != "base" and not all(name in names for names in members)):
        return True
    # Other weights elsewhere are another member, which its place says.
    was, now = (_location(part["family"], name) for part in (saved, current))
    return section != "family" and was != now and saved["checkpoints"].get(name) != current["checkpoints"].get(name)


def _location(family: Mapping[str, Any], name: str) -> Any:
    return family["base"] if name == "base" else family["models"].get(name)


def all_places(saved: Mapping[str, Any], resolved: ResolvedConfig) -> dict[str, list[str]]:
    """How recipes of a run have named each member so far, the present name first."""
    earlier = saved.get("places") or _places_of(saved.get("family") or {})
    now = resolved.resolved["places"]
    return {name: list(dict.fromkeys([*now[name], *earlier.get(name, ())])) for name in now}


def _places_of(family: Mapping[str, Any]) -> dict[str, list[str]]:
    """The same for a run of an earlier version, from its family: folders in their full length."""
    members = {"base": family.get("base"), **family.get("models", {})}
    return {
        name: [str(Path(location["path"]).absolute()), str(Path(location["path"]).resolve())]
        for name, location in members.items()
        if isinstance(location, Mapping) and not location.get("adapter")
    }


def _named(part: Mapping[str, Any]) -> Any:
    """The recipes that people brought, with members by name wherever they are named by a place."""
    names = {place: name for name, places in part.get("places", {}).items() for place in places}
    for name, location in {"base": part["family"]["base"], **part["family"]["models"]}.items():
        names[location["path"]] = name

    return renamed(part["recipes"], names)


def renamed(recipe: Any, names: Mapping[str, str]) -> Any:
    """A recipe, or a part of one, with other names of models in place of those that are keys of `names`."""
    if isinstance(recipe, Mapping):
        return {key: renamed(value, names) for key, value in recipe.items()}
    if isinstance(recipe, list):
        return [renamed(value, names) for value in recipe]
    return names.get(recipe, recipe) if isinstance(recipe, str) else recipe


def _in_words(key: Key, was: Any, now: Any, resolved: ResolvedConfig) -> str:
    """A difference in the keys and files that the user wrote."""
    if key[:2] in (("resolved", "checkpoints"), ("resolved", "settings")) and key[2:]:
        name = key[2]
        where = "family.base" if name == "base" else f"family.models.{name}"
        what = ".".join(key[3:]) or "the weights"
        return f"{where}: {what} in {resolved.family.folders.get(name, name)} changed since the run was started"
    if key[:2] == ("resolved", "recipes") and key[2:]:
        whole = not key[3:]
        what = "was added" if whole and was is None else "is missing" if whole and now is None else "has changed"
        return f"study.recipes: {key[2]} {what} since the run was started"
    if key == ("resolved", "prompts_sha256"):
        setting, place = resolved.config.prompts.place
        return f"{setting}: the content of {place} has changed"
    if key == ("activations", "keep"):
        return f"activations.keep: was {was}, is {now} (nex-merge clean removes activations of a run that is there)"
    if key[0] == "resolved":
        key = key[1:]
    if key[0] == "family" and key[-1] == "path":
        key = key[:-1]
    return f"{'.'.join(key)}: was {was!r}, is {now!r}"


def differences(old: Mapping[str, Any], new: Mapping[str, Any], at: Key = ()) -> Iterator[tuple[Key, Any, Any]]:
    """The keys that differ, with both values."""
    for key in sorted(old.keys() | new.keys(), key=str):
        here = (*at, str(key))
        was, now = old.get(key), new.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from differences(was, now, here)
            if here in _ORDERED and was == now and list(was) != list(now):
                yield here, list(was), list(now)
        elif was != now and here not in _FREE:
            yield here, was, now
