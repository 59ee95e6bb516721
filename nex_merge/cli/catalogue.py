"""Commands that list what configurations can name: methods, families, search spaces, measures."""

from nex_merge.cli.app import SEARCH, app, example
from nex_merge.setup.config import find_file, known_names
from nex_merge.setup.yaml_files import as_yaml, read_yaml
from nex_merge.terminal import echo


@app.command(rich_help_panel=SEARCH, epilog=example("methods"))
def methods() -> None:
    """List the merge methods that can be searched, with their parameters."""
    from nex_merge.merging import method_specs

    for name, spec in sorted(method_specs().items()):
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
def families() -> None:
    """List the model families that configurations can name."""
    from nex_merge.setup.families import read_family

    for name in known_names("configs/families"):
        family, _ = read_family(name)
        echo(f"{name}: base {family.base.path}")
        for model, location in family.models.items():
            adapter = f" + {location.adapter}" if location.adapter else ""
            echo(f"    {model}: {location.path}{adapter}")


@app.command(rich_help_panel=SEARCH, epilog=example("spaces"))
def spaces() -> None:
    """List the search spaces that configurations can name."""
    for name in known_names("search_spaces"):
        path = find_file(name, "search_spaces")
        space = read_yaml(path) if path is not None else {}
        echo(f"{name}: {', '.join(space.get('methods', []))}")
        for parameter, value in space.get("parameters", {}).items():
            echo(f"    {parameter}: {as_yaml(value)}")


@app.command(rich_help_panel=SEARCH, epilog=example("measures"))
def measures() -> None:
    """List the measures of variants, and which can be the objective."""
    from nex_merge.measures.registry import MEASURES

    for name, measure in MEASURES.items():
        direction = "more is better" if measure.direction > 0 else "less is better"
        marks = [direction, *([measure.unit] if measure.unit else []), *(["objective"] if measure.is_objective else [])]
        echo(f"{name}: {measure.meaning}\n    {', '.join(marks)}")
