"""The reference in docs/ says what the code says: every page is as generated, with all commands, keys and measures."""

import subprocess
import sys
from typing import Annotated, Literal

import pytest
import typer
from pydantic import BaseModel, Field

from docs import generate
from nex_merge.cli import app
from nex_merge.measures.registry import MEASURES, OBJECTIVES
from nex_merge.setup.config import RunConfig

REFERENCE = generate.ROOT / "docs" / "reference"


@pytest.mark.parametrize("name", generate.PAGES)
def test_a_page_on_disk_is_as_generated(name):
    path = generate.ROOT / name
    fresh = path.is_file() and path.read_text(encoding="utf-8") == generate.PAGES[name]()
    assert fresh, f"{name} is out of date; regenerate it with: {generate.COMMAND}"


def test_the_reference_holds_generated_pages_only():
    on_disk = {path.relative_to(generate.ROOT).as_posix() for path in REFERENCE.rglob("*") if path.is_file()}
    assert on_disk <= set(generate.PAGES), "a page without a function in docs/generate.py"


def test_a_page_does_not_depend_on_the_terminal(tmp_path):
    code = "from docs import generate; print(generate.render_cli(), end='')"
    env = {"COLUMNS": "40", "PYTHONPATH": str(generate.ROOT), "PYTHONUTF8": "1"}
    narrow = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, check=True)
    assert narrow.stdout.decode() == generate.render_cli()


def test_every_option_of_every_command_is_listed():
    sections = dict(part.split("\n", 1) for part in generate.render_cli().split("\n## ")[1:])
    commands = typer.main.get_command(app).commands
    assert set(sections) == set(commands)
    for name, command in commands.items():
        for option in (text for parameter in command.params for text in parameter.opts if text.startswith("--")):
            assert option == "--help" or f"| `{option}" in sections[name], (name, option)


def test_every_key_of_a_configuration_is_listed():
    def keys(model, prefix=""):
        for name, field in model.model_fields.items():
            nested = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
            yield from keys(field.annotation, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]

    page = generate.render_configuration()
    for key in keys(RunConfig):
        assert f"| `{key}` |" in page, key


def test_every_measure_is_listed_with_its_properties():
    lines = [line for line in generate.render_measures().splitlines() if line.startswith("| `")]
    cells = [line.strip("| ").split(" | ") for line in lines]
    assert [row[0] for row in cells] == [f"`{name}`" for name in MEASURES]
    assert [row[0] for row in cells if row[3] == "yes"] == [f"`{name}`" for name in OBJECTIVES]
    rows = {row[0]: row for row in cells}
    assert rows["`nex`"][1] == "more is better" and rows["`mean_tokens`"][1:3] == ["less is better", "tokens"]
    assert rows["`nex`"][4] == "yes" and rows["`entropy`"][4] == "no"


class Example(BaseModel):
    share: float = Field(default=0.5, gt=0, le=1)
    count: int | None = Field(default=None, ge=1)
    tokens: Annotated[int, Field(ge=16)] | Literal["auto"] = "auto"
    names: list[str] = Field(min_length=1)
    kind: Literal["a", "b"] = "a"
    sizes: dict[str, int | float] = {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("share", "number, greater than 0 and at most 1"),
        ("count", "integer, at least 1, or `null`"),
        ("tokens", "integer, at least 16, or `auto`"),
        ("names", "list of strings, at least 1 item"),
        ("kind", "one of `a`, `b`"),
        ("sizes", "mapping of names to numbers"),
    ],
)
def test_types_in_words(name, words):
    field = Example.model_fields[name]
    assert generate.type_words(field.annotation, generate.bounds_of(field)) == words


def test_a_type_without_words_is_named():
    with pytest.raises(TypeError, match="no words for the type <class 'complex'>"):
        generate.type_words(complex, {})


def test_a_pipe_does_not_end_a_cell():
    assert generate.table(["a"], [["x | y"]]) == "| a |\n|---|\n| x \\| y |"
