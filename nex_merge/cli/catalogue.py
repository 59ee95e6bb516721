"""Commands that list what configurations can name: methods, families, search spaces, measures."""

from typing import Annotated, Any

import typer

from nex_merge.cli.app import SEARCH, ShortFormat, app, example
from nex_merge.inert import json_text
from nex_merge.setup.config import find_file, known_names
from nex_merge.setup.yaml_files import as_yaml, read_yaml
from nex_merge.terminal import echo

Form = Annotated[ShortFormat, typer.Option("--format", help="output format")]


@app.command(rich_help_panel=SEARCH, epilog=example("methods"))
def methods(form: Form = ShortFormat.table) -> None:
    """List the merge methods that can be searched, with their parameters."""
    from dataclasses import asdict

    from nex_merge.merging import method_specs

    specs = dict(sorted(method_specs().items()))
    if form is ShortFormat.json:
        echo(json_text({name: asdict(spec) for name, spec in specs.items()}))
        return
    for name, spec in specs.items():
        echo(f"{name}: {spec.title}")
        marks = [
            "pairs of models" if spec.pairs else f"{spec.min_models} or more models",
            "task vectors over the base" if spec.names_base else "without the base",
            *(["seeded random masks"] if spec.stochastic else []),
        ]
        echo(f"    {', '.join(marks)}")
        for parameter in spec.parameters.values():
            value = "required" if parameter.required else f"default {parameter.default}"
            echo(f"    {parameter.name}: {parameter.type}, {value}{', per model' if parameter.per_model else ''}")


@app.command(rich_help_panel=SEARCH, epilog=example("families"))
def families(form: Form = ShortFormat.table) -> None:
    """List the model families that configurations can name."""
    from nex_merge.setup.families import read_family

    known = {name: read_family(name)[0] for name in known_names("configs/families")}
    if form is ShortFormat.json:
        echo(json_text({name: family.model_dump(mode="json", exclude_none=True) for name, family in known.items()}))
        return
    for name, family in known.items():
        echo(f"{name}: base {family.base.path}")
        for model, location in family.models.items():
            adapter = f" + {location.adapter}" if location.adapter else ""
            echo(f"    {model}: {location.path}{adapter}")


@app.command(rich_help_panel=SEARCH, epilog=example("spaces"))
def spaces(form: Form = ShortFormat.table) -> None:
    """List the search spaces that configurations can name."""
    known: dict[str, dict[str, Any]] = {}
    for name in known_names("search_spaces"):
        path = find_file(name, "search_spaces")
        known[name] = read_yaml(path) if path is not None else {}
    if form is ShortFormat.json:
        echo(json_text(known))
        return
    for name, space in known.items():
        echo(f"{name}: {', '.join(space.get('methods', []))}")
        for parameter, value in space.get("parameters", {}).items():
            echo(f"    {parameter}: {as_yaml(value)}")


@app.command(rich_help_panel=SEARCH, epilog=example("measures"))
def measures(form: Form = ShortFormat.table) -> None:
    """List the measures of variants, and which can be the objective."""
    from nex_merge.measures.registry import MEASURES

    if form is ShortFormat.json:
        listed = {
            name: {
                "meaning": measure.meaning,
                "direction": "more" if measure.direction > 0 else "less",
                "unit": measure.unit,
                "objective": measure.is_objective,
                "interval": measure.with_interval,
            }
            for name, measure in MEASURES.items()
        }
        echo(json_text(listed))
        return
    for name, measure in MEASURES.items():
        direction = "more is better" if measure.direction > 0 else "less is better"
        marks = [direction, *([measure.unit] if measure.unit else []), *(["objective"] if measure.is_objective else [])]
        echo(f"{name}: {measure.meaning}\n    {', '.join(marks)}")
