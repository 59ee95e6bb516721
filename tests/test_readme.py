"""The README names what there is: every setting with its default, every file, every command."""

import re
from pathlib import Path

from pydantic import BaseModel

from nex_merge.cli import app
from nex_merge.setup.config import RunConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def settings(model=RunConfig, prefix=""):
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings(field.annotation, f"{prefix}{name}.")
        else:
            default = "required" if field.is_required() else field.default
            default = "null" if default is None else str(default).lower() if isinstance(default, bool) else default
            yield f"| `{prefix}{name}` | {default} | {field.description} |"


def test_the_configuration_table_is_whole():
    table = [line for line in README.splitlines() if re.match(r"\| `[a-z_.]+` \| [^|]+ \| [^|]+ \|$", line)]
    for line in settings():
        assert line in table, line


def architecture() -> list[str]:
    """The files that the Architecture section names, as paths in the package; a folder's row precedes its files."""
    section = README[README.index("## Architecture") :]
    folder, files = "", []
    for line in section.splitlines():
        if group := re.match(r"\| \*\*(?:`([a-z_/]+)`|at the root)\*\* \|", line):
            folder = group[1] or ""
        elif file := re.match(r"\| `([a-z_]+\.py)` \| \S", line):
            files.append(folder + file[1])
    return files


def test_the_architecture_section_names_every_file_under_its_folder():
    package = ROOT / "nex_merge"
    paths = (path.relative_to(package) for path in package.rglob("*.py"))
    there = [path.as_posix() for path in paths if path.name != "__init__.py" and "qwen3_tiny" not in path.parts]
    assert sorted(architecture()) == sorted(there)


def test_every_command_it_runs_exists():
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    named = set(re.findall(r"(?:^|`)nex-merge ([a-z]+)", README, re.MULTILINE))
    assert named and named <= known, named - known


def test_no_placeholder_is_left():
    for path in (ROOT / "README.md", ROOT / "nex_merge/families/qwen3_tiny/README.md"):
        assert "@@" not in path.read_text(encoding="utf-8"), path
