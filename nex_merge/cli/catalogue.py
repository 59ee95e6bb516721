"""What can be named in configurations: methods, families, search spaces."""

from nex_merge.setup.config import find_file, known_names, read_yaml
from nex_merge.setup.families import read_family


def list_methods() -> None:
    """Every merge method that can be searched, with its parameters, as mergekit's registry has them."""
    from nex_merge.merging import method_specs

    for name, spec in sorted(method_specs().items()):
        print(f"{name}: {spec.title}")
        marks = [
            "pairs of models" if spec.pairs else f"{spec.min_models} or more models",
            "over the base" if spec.names_base else "without the base",
            *(["seeded random masks"] if spec.stochastic else []),
        ]
        print(f"    {', '.join(marks)}")
        for parameter in spec.parameters.values():
            value = "required" if parameter.required else f"default {parameter.default}"
            print(f"    {parameter.name}: {parameter.type}, {value}{', per model' if parameter.per_model else ''}")


def list_families() -> None:
    """Every family of configs/families."""
    for name in known_names("configs/families"):
        family, _ = read_family(name)
        print(f"{name}: base {family.base.path}")
        for model, location in family.models.items():
            print(f"    {model}: {location.path}")


def list_spaces() -> None:
    """Every search space of search_spaces."""
    for name in known_names("search_spaces"):
        path = find_file(name, "search_spaces")
        space = read_yaml(path) if path is not None else {}
        print(f"{name}: {', '.join(space.get('methods', []))}")
        for parameter, value in space.get("parameters", {}).items():
            print(f"    {parameter}: {value}")
