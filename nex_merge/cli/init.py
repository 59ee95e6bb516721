"""The command that writes a configuration: from a mergekit file, from options, or from what it asks."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nex_merge.cli.app import SEARCH, Set, app, example, path_value, say, say_next
from nex_merge.errors import InputError
from nex_merge.setup import config as configuration

if TYPE_CHECKING:
    from nex_merge.setup.starting.from_mergekit import Plan

_METHOD = "ties"  # where nothing else is asked for


@app.command(
    rich_help_panel=SEARCH, epilog=example("init my_merge.yml --prompts my_prompts.jsonl --out my_search.yaml")
)
def init(
    recipe: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="a file for mergekit-yaml or mergekit-evolve", callback=path_value),
    ] = None,
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="the base: a folder or a hub id")] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME=MODEL", help="a fine-tune of it, without CONFIG; repeatable")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help=f"merge method to search, without CONFIG; default: {_METHOD}")
    ] = None,
    prompts: Annotated[str | None, typer.Option(metavar="FILE", help="prompts to answer", callback=path_value)] = None,
    trials: Annotated[int | None, typer.Option(min=0, help="number of merges to try; default: 40")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the configuration to write", callback=path_value)
    ] = None,
    settings: Set = None,
) -> None:
    """Write a configuration for a search: around a mergekit file, or of models of your own.

    On a terminal, what is not given is asked. The file holds family and search space, with a reason for every choice;
    what a mergekit file has and a search can't do is said. The schema by which editors check it is put beside it.
    """
    asked = _Questions()
    if recipe is not None and (model or method):
        raise InputError(
            f"{'--model' if model else '--method'}: expected none beside {recipe}, which names models and method"
        )
    given, content = configuration.override(settings or []), None
    if trials is not None:  # wins over --set, as with search and validate
        given = configuration.merge_mappings(given, {"study": {"trials": trials}})
    if recipe is not None:
        from nex_merge.setup.recipe_files import read_recipe

        content = read_recipe(recipe)
    elif base is None:
        base = asked.text("--base", "Base model, a folder or a hub id (owner/name)")
    models = asked.models(model or []) if recipe is None else {}
    prompts = prompts or asked.text("--prompts", "File of prompts (.jsonl, .txt, .csv or .parquet)")
    if trials is None and asked.can_ask:
        trials = asked.number("Merges to try", 40)
    out = out or Path(asked.text("--out", "Configuration to write", "search.yaml"))
    _check_new(out)

    plan = _plan(recipe, content, base, models, method or _METHOD)
    text, dropped = _written(plan, recipe, {"file": prompts}, trials, out, given)
    _write(out, text)
    for line in plan.carried:
        say(f"note: {line}")
    for line in dropped:
        say(f"not carried over: {line}")
    say(f"wrote {out}")
    say_next("Check it", "validate", out)


class _Questions:
    """Asks on a terminal; elsewhere, says which option is missing."""

    def __init__(self) -> None:
        self.can_ask = sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()

    def text(self, option: str, question: str, default: str | None = None) -> str:
        if not self.can_ask:
            raise InputError(f"{option}: missing, and there is no terminal to ask; see nex-merge init --help")
        return typer.prompt(question, default=default, err=True).strip()

    def number(self, question: str, default: int) -> int:
        return typer.prompt(question, default=default, type=int, err=True)

    def models(self, given: list[str]) -> dict[str, str]:
        """Models by name, from --model or asked one by one until a line is empty."""
        found = dict(_named(text) for text in given)
        if len(found) < len(given):
            raise InputError(f"--model: expected different names, got {', '.join(given)}")
        if given:
            return found
        if not self.can_ask:
            raise InputError("--model: missing, and there is no terminal to ask; see nex-merge init --help")
        while text := typer.prompt(
            "A fine-tune of it, NAME=MODEL" + (", or nothing to go on" if found else ""),
            default="" if found else None,
            show_default=False,
            err=True,
        ).strip():
            try:
                name, place = _named(text)
                found[name] = place
            except InputError as error:
                say(str(error).removeprefix("--model: "))
        return found


def _named(text: str) -> tuple[str, str]:
    name, equals, place = text.partition("=")
    if not equals or not name.strip() or not place.strip():
        raise InputError(f"--model: expected NAME=MODEL, such as math=./checkpoints/math, got {text!r}")
    return name.strip(), place.strip()


def _check_new(out: Path) -> None:
    from nex_merge.setup.paths import check_writable_file

    if out.suffix not in (".yaml", ".yml"):
        raise InputError(f"--out: expected a file that ends in .yaml, got {str(out)!r}")
    if out.exists() or out.is_symlink():
        raise InputError(f"--out: {out} is there already, and nothing is overwritten; choose another name")
    check_writable_file(out, "--out")


def _plan(
    recipe: Path | None, content: Mapping[str, Any] | None, base: str | None, models: Mapping[str, str], method: str
) -> "Plan":
    """What the search begins with."""
    from nex_merge.merging import check_structure, method_specs
    from nex_merge.setup.explain import nearest
    from nex_merge.setup.starting.from_evolve import plan_of_evolve
    from nex_merge.setup.starting.from_mergekit import Plan, plan_of

    specs = method_specs()
    if content is None:
        if method not in specs:
            raise InputError(f"--method: unknown method {method!r}.{nearest(method, sorted(specs), 'methods')}")
        return Plan(specs[method], base or "", models)
    source = str(recipe)
    if "experts" in content:
        raise InputError(
            f"{source}: experts: is a configuration of mergekit-moe, whose models have several MLPs a layer; merges "
            "here have one"
        )
    if "genome" in content:
        return plan_of_evolve(content, specs, source, base)
    if "family" in content or "prompts" in content:
        raise InputError(f"{source}: is a configuration of nex-merge already; expected one for mergekit")
    try:
        check_structure(content)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    return plan_of(content, specs, source, base)


def _written(
    plan: "Plan",
    recipe: Path | None,
    prompts: Mapping[str, Any],
    trials: int | None,
    out: Path,
    given: Mapping[str, Any],
) -> tuple[str, list[str]]:
    """The text of the file, and what is not carried over. Raises InputError for what `validate` would refuse at once.

    Members on the hub are not fetched, and folders not looked into; `validate` does both.
    """
    from nex_merge.measures.constraints import constraints_of
    from nex_merge.measures.estimates import objective_of
    from nex_merge.merging import method_specs
    from nex_merge.setup.families import read_family
    from nex_merge.setup.prompts import load_prompts
    from nex_merge.setup.search_space import load_space
    from nex_merge.setup.starting.around import space_around
    from nex_merge.setup.starting.new_config import file_text, new_settings
    from nex_merge.study.preflight import check_measures

    around = space_around(plan)
    source = str(recipe) if recipe is not None else "family"
    settings, comments = new_settings(plan, around, prompts, trials, str(Path("results") / out.stem), source)
    settings = configuration.merge_mappings(settings, given)
    dropped = [*plan.dropped, *around.dropped]
    config = configuration.parse(configuration.RunConfig, settings, source)
    read_family(config.family)
    if config.search_space is not None:
        load_space(config.search_space, method_specs(), list(plan.models))
    check_measures(config, objective_of(config.study), constraints_of(config.study))
    load_prompts(config.prompts)
    return file_text(settings, comments, recipe.name if recipe else None, plan, dropped), dropped


def _write(out: Path, text: str) -> None:
    from nex_merge.atomic import new_file
    from nex_merge.setup.schema import schema_text
    from nex_merge.setup.starting.new_config import schema_path

    for path, content in ((schema_path(out), schema_text(configuration.RunConfig)), (out, text)):
        with new_file(path) as file:
            file.write_text(content, encoding="utf-8", newline="\n")
