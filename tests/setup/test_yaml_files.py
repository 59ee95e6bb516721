"""YAML as version 1.2 reads it, in files and in --set; what 1.1 reads otherwise is refused with the spelling to use."""

import pytest

from nex_merge.errors import InputError
from nex_merge.setup.config import GenerationConfig, merge_mappings, override, parse
from nex_merge.setup.search_space import RangeConfig
from nex_merge.setup.study_config import StudyConfig
from nex_merge.setup.yaml_files import as_yaml, parse_value, read_yaml

pytestmark = pytest.mark.quick

VALUES = [
    ("1e-3", 0.001), ("1E3", 1000.0), (".5", 0.5), ("-.5e1", -5.0), ("5.", 5.0), ("+3", 3), ("0", 0), ("0.10", 0.1),
    ("0o10", 8), ("0x10", 16), (".inf", float("inf")), ("true", True), ("False", False), ("null", None), ("~", None),
    ("", None), ("010", "010"), ("-007", "-007"), ("1_000", "1_000"), ("12:30:45", "12:30:45"), ("yes", "yes"),
    ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("2024-01-02", "2024-01-02"), ("0b1", "0b1"),
    ("1e", "1e"), ("=", "="), ("nan", "nan"), ("01.5", "01.5"), ('"5"', "5"), ("'true'", "true"),
    ("[1e-3, yes, {a: 010}]", [0.001, "yes", {"a": "010"}]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_files_and_options_read_alike(tmp_path, text, value):
    (tmp_path / "c.yaml").write_text(f"key: {text}\n")
    for found in (read_yaml(tmp_path / "c.yaml")["key"], override([f"key={text}"])["key"]):
        assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text", ["Answer: yes", "a #b", "*.x", "%x", "@x", "&x", "- be brief", "!x", "? a", "it's", "a\tb"]
)
def test_an_option_is_plain_text_unless_in_brackets_or_quotes(text):
    assert override([f"prompts.system={text}"]) == {"prompts": {"system": text}}


def test_options_that_are_no_settings():
    for setting in (".=1", "a..b=1", "=1", "a"):
        with pytest.raises(InputError, match="--set: expected key=value"):
            override([setting])
    for value in ("[1", '"a', "{a: 1", "'it's'"):
        with pytest.raises(InputError, match="--set k: expected a YAML value, got"):
            override([f"k={value}"])


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (
            StudyConfig,
            {"seed": "010"},
            "seed: expected a non-negative integer, got '010'; write 10 (or, if it is meant",
        ),
        (StudyConfig, {"seed": "1_000"}, "seed: expected a non-negative integer, got '1_000'; write 1000"),
        (StudyConfig, {"seed": "5"}, "got '5'; write 5"),
        (StudyConfig, {"trials": 1e3}, "trials: expected a non-negative integer, got 1000.0; write 1000"),
        (StudyConfig, {"seed": "2024-01-02"}, "seed: expected a non-negative integer, got '2024-01-02'"),
        (StudyConfig, {"baselines": "yes"}, "baselines: expected true or false, got 'yes'; write true"),
        (StudyConfig, {"baselines": "Off"}, "baselines: expected true or false, got 'Off'; write false"),
        (StudyConfig, {"baselines": None}, "baselines: expected true or false, got null"),
        (StudyConfig, {"objective": True}, "objective: expected a string, got true"),
        (StudyConfig, {"objective": ["nex", 1]}, "objective: expected a string, got [nex, 1]"),
        (StudyConfig, {"constraints": {"finished": 0.9}}, "constraints.finished: expected a bound like '>= 0.9' or"),
        (StudyConfig, {"constraints": {"finished": ">= "}}, "constraints.finished: expected a bound like"),
        (StudyConfig, {"constraints": {"finished": "> 0.9"}}, "or '<= 800', got '> 0.9'"),
        (StudyConfig, {"constraints": {"finished": ">= 1e999"}}, "constraints.finished: expected a bound like"),
        (GenerationConfig, {"temperature": "1e-1"}, "expected a non-negative number, got '1e-1'; write 0.1"),
        (GenerationConfig, {"batch_tokens": None}, "batch_tokens: expected an integer or 'auto', got null"),
        (RangeConfig, {"low": "12:30:45", "high": 1}, "low: expected a number, got '12:30:45'"),
        (RangeConfig, {"low": {"a": 1}, "high": 1}, "low: expected a number, got {a: 1}"),
        (RangeConfig, {"low": "1e-3", "high": 1}, "low: expected a number, got '1e-3'; write 0.001"),
    ],
)
def test_the_message_is_about_the_users_key_and_gives_the_spelling(model, data, message):
    with pytest.raises(InputError) as error:
        parse(model, data, "c.yaml")
    assert f"c.yaml: {message}" in str(error.value) or message in str(error.value)
    assert "valid" not in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\tb: 1\n", "c.yaml line 2: indented with a tab; YAML takes blanks only"),
        ("a: 1\na: 2\n", "line 2: not valid YAML: duplicate key 'a'"),
        ("a: >= 0.9\n", "Put text that begins with a special character in quotes"),
        ("a: 1\n---\nb: 2\n", "line 2: a second document begins (---); keep one of them"),
        ("", "c.yaml: is empty"),
        ("# nothing\n", "c.yaml: is empty"),
        ("a: *.jsonl\n", "Put text that begins with a special character in quotes"),
        ("a: @x\n", "Put text that begins with a special character in quotes"),
        ("a: !x 1\n", "line 1: not valid YAML"),
        ("a: b: c\n", "Put text that holds ': ' in quotes"),
        ("[a, b]: 1\n", "expected a key that is text"),
        ("- a\n", "expected a mapping of keys to values, got a list"),
        ("just words\n", "expected a mapping of keys to values, got only 'just words'"),
    ],
)
def test_files_at_fault(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        read_yaml(tmp_path / "c.yaml")
    assert message in str(error.value)


def test_what_yaml_has_besides(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("one: &x {a: 1}\ntwo: {<<: *x, b: 2}\nno: 1\n010: 2\nnull: 3\n")
    assert read_yaml(file) == {"one": {"a": 1}, "two": {"a": 1, "b": 2}, "no": 1, "010": 2, "null": 3}
    for encoding in ("utf-8-sig", "utf-16"):
        file.write_text("a: ü\r\n", encoding=encoding)
        assert read_yaml(file) == {"a": "ü"}
    file.write_bytes(b"a: \xfc\n")
    with pytest.raises(InputError, match="line 1: expected UTF-8 text, got the byte 0xfc"):
        read_yaml(file)


def test_values_in_messages():
    assert [as_yaml(v) for v in (None, True, 1.0, [None, "a"], {"a": False}, "a")] == [
        "null", "true", "1.0", "[null, a]", "{a: false}", "'a'",
    ]  # fmt: skip
    assert len(as_yaml(list(range(1000)))) == 100
    assert parse_value(" 5 ") == 5


def test_an_empty_mapping_within_a_section_replaces_what_was_there():
    low = {"study": {"constraints": {"mean_tokens": "<= 400"}, "trials": 3}, "nex": {"rho": 0.9}}
    assert merge_mappings(low, override(["study.constraints={}"]))["study"] == {"constraints": {}, "trials": 3}
    assert merge_mappings(low, {"nex": {}}) == low, "a section without settings sets nothing"
    more = merge_mappings(low, {"study": {"constraints": {"finished": ">= 0.9"}}})
    assert set(more["study"]["constraints"]) == {"mean_tokens", "finished"}
