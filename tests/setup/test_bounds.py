"""Settings that nobody can have meant end in a sentence within a second: digits, depths, ranges, patterns."""

import time

import pytest
from typer.testing import CliRunner

from nex_merge.answers.conclusions import check_match
from nex_merge.cli import app
from nex_merge.errors import InputError
from nex_merge.merging import method_specs
from nex_merge.records import Prompt
from nex_merge.setup.config import StudyConfig, override, parse, read_config
from nex_merge.setup.fingerprints import settings_of
from nex_merge.setup.jsontext import parse_json
from nex_merge.setup.search_space import load_space
from nex_merge.setup.yaml_files import as_yaml

pytestmark = pytest.mark.quick
NINES = "9" * 5000


def refusal(act):
    began = time.monotonic()
    with pytest.raises(InputError) as error:
        act()
    assert time.monotonic() - began < 1 and len(str(error.value)) < 500
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NINES, "an integer of 5,000 digits"),
        ("0x" + "f" * 5000, "an integer of 5,002 digits"),
        ("[" * 5000, "nested more than 64 levels deep"),
        ("[" * 100 + "]" * 100, "nested more than 64 levels deep"),
        (f"{{a: {NINES}}}", "an integer of 5,000 digits"),
    ],
)
def test_values_on_the_command_line_and_in_files(tmp_path, text, message):
    assert message in refusal(lambda: override([f"study.trials={text}"]))
    (tmp_path / "c.yaml").write_text(f"study:\n  trials: {text}\n")
    assert f"c.yaml line 2: not valid YAML: {message}" in refusal(lambda: read_config(str(tmp_path / "c.yaml")))


def test_a_configuration_is_no_book(tmp_path):
    (tmp_path / "c.yaml").write_text("# x\n" * 300_000)
    assert "larger than 1.0 MB" in refusal(lambda: read_config(str(tmp_path / "c.yaml")))


@pytest.mark.parametrize("value", [10**16, 10**400, 10**5000, NINES, 1e300, f">= {NINES}"], ids=range(6))
def test_numbers_of_settings(value):
    refusal(lambda: parse(StudyConfig, {"trials": value}, "c"))
    refusal(lambda: parse(StudyConfig, {"constraints": {"nex": value}}, "c"))
    refusal(lambda: parse(StudyConfig, {"trials": 1, "x" * 5000: 1}, "c"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"low": 0, "high": 1, "step": 1e-300}, "expected at most 1,000,000 steps from low to high, got 1e-300"),
        ({"low": 0, "high": 1e300, "step": 1}, "high: expected values from -1e+12 to 1e+12, got 1.0e+300"),
        ({"low": -1e300, "high": 1}, "low: expected values from -1e+12 to 1e+12"),
        ({"choices": [1, 1e300]}, "choices.1: expected values from -1e+12 to 1e+12"),
        (10**400, "weight: expected values from -1e+12 to 1e+12"),
        (float("inf"), "expected a finite number"),
    ],
)
def test_ranges_of_a_search_space(value, message):
    space = {"methods": ["linear"], "parameters": {"weight": value}}
    assert message in refusal(lambda: load_space(space, method_specs(), ["a", "b"]))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(" * 5000, "expected a regular expression of at most 1,000 characters, got 5,000"),
        ("(" * 400 + ")" * 400, "is nested too deeply for a regular expression"),
    ],
)
def test_patterns(pattern, message):
    assert message in refusal(lambda: check_match(f"regex:{pattern}", "consensus.match"))


def test_a_password_in_a_value_is_not_printed():
    assert as_yaml("postgresql://u:secret@h/x") == "'postgresql://u:***@h/x'"


def test_settings_of_a_checkpoint_that_are_nested_without_end(tmp_path):
    (tmp_path / "config.json").write_text("[" * 100_000)
    assert list(settings_of(tmp_path)) == ["config.json"], "whoever loads it says what is wrong with it"


def test_json():
    assert "line 1: an integer of 5,000 digits" in refusal(lambda: parse_json(f'{{"a": {NINES}}}', "line 1"))
    assert "nested more than 64" in refusal(lambda: parse_json("[" * 100 + "]" * 100, "line 1"))
    assert parse_json("[" * 60 + "null" + "]" * 60, "line 1") and parse_json("null", "line 1") is None
    assert Prompt((), choices=("a", "b")).options == 2 and Prompt(()).options is None


def test_a_key_that_is_no_text_is_refused():
    done = CliRunner().invoke(app, ["validate", "configs/qwen3_ties.yaml", "--set", "\udcff=1"])
    assert isinstance(done.exception, InputError) and "expected a valid string" in str(done.exception)
