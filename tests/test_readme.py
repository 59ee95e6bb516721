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


def test_the_architecture_section_names_every_file():
    section = README[README.index("## Architecture") :]
    for path in sorted((ROOT / "nex_merge").rglob("*.py")):
        if path.name != "__init__.py" and "qwen3_tiny" not in path.parts:
            assert f"`{path.name}`" in section, path


def test_every_command_it_runs_exists():
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    named = set(re.findall(r"(?:^|`)nex-merge ([a-z]+)", README, re.MULTILINE))
    assert named and named <= known, named - known


def test_no_placeholder_is_left():
    for path in (ROOT / "README.md", ROOT / "nex_merge/families/qwen3_tiny/README.md"):
        assert "@@" not in path.read_text(encoding="utf-8"), path
