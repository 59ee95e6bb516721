"""What README and docs/ show works: commands are run, in order, and so is Python; configurations are read.

A page's commands run in a folder of their own, in which the files are that the page shows, a finished run of
qwen3-tiny with few trials and prompts, and samples that lm-eval wrote.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import typer
import yaml
from mergekit.config import MergeConfiguration
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.measures.constraints import constraints_of
from nex_merge.measures.estimates import objective_of
from nex_merge.merging import method_specs
from nex_merge.setup.config import RunConfig, merge_mappings, parse
from nex_merge.setup.families import FamilyConfig
from nex_merge.setup.search_space import load_space
from nex_merge.setup.starting.from_evolve import plan_of_evolve
from nex_merge.study.preflight import check_capture, check_measures, check_samples
from nex_merge.study.race import check_race
from tests.pages import PAGES, ROOT, Block, arguments, blocks, prose

REASONS = {"needs a GPU", "needs the hub", "needs an account"}
LANGUAGES = {"console", "sh", "python", "yaml", "json", "text"}
# What a page says -> what is run instead, where that would take long, wait, or open a window.
CHEAPER = {
    "--trials 12": "",  # as many as the configurations below say
    "watch results/qwen3_ties": "watch results/qwen3_ties --once",
    "dashboard results/qwen3_ties": "dashboard results/qwen3_ties --out study.db",
    "--open": "",
    "--accuracy builtin": "--accuracy builtin --problems 1",
    "--samples 16": "--samples 2 --set generation.max_new_tokens=64",
    "--count 80,320": "--count 8 --limit 1 --set generation.max_new_tokens=300",
    "--set study.objective=entropy": "--set study.objective=entropy --trials 1 --set generation.max_new_tokens=64",
    "--set activations.capture=none": "--set activations.capture=none --trials 2 --set generation.max_new_tokens=64",
}
# The shipped configurations and prompts, as they lie in the folder in which a page's commands run.
TRIALS, PROMPTS = 3, 5
CONFIGS = ["qwen3_ties", "qwen3_consensus"]
COMMANDS = typer.main.get_command(app).commands
ALL = [block for page in PAGES for block in blocks(page)]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def cheaper(command: str) -> str:
    for said, instead in CHEAPER.items():
        command = command.replace(said, instead)
    return command


def invoke(words: list[str]) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, f"nex-merge {' '.join(words)}\n{done.exception!r}\n{done.output}"
    return done.stdout


def shipped(name: str) -> dict:
    content = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
    return merge_mappings(content, {"study": {"trials": TRIALS}})


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with the shipped configurations, made cheap, and a finished run; to be copied."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "configs" / "prompts").mkdir(parents=True)
    prompts = Path("configs/prompts/qwen3_tiny.jsonl")
    lines = (ROOT / prompts).read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / prompts).write_text("".join(lines[:PROMPTS]), encoding="utf-8")
    shutil.copytree(ROOT / "tests" / "answer_files" / "evals", folder / "evals")
    for name in CONFIGS:
        (folder / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(shipped(name)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        invoke(["search", "configs/qwen3_ties.yaml"])
    return folder


RUNNING = sorted(
    {block.page for block in ALL if block.reason is None and (block.commands or block.language == "python")}
)


@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.stem)
def test_what_a_page_shows_runs(page, desk, tmp_path, monkeypatch):
    found = [block for block in blocks(page) if block.reason is None]
    place = Path(shutil.copytree(desk, tmp_path / "desk"))
    monkeypatch.chdir(place)
    for block in found:
        if block.title:
            Path(block.title).parent.mkdir(exist_ok=True)
            Path(block.title).write_text(block.text, encoding="utf-8")
    for block in found:
        if block.language == "python":
            exec(compile(block.text, f"{page.name}: {block.text.splitlines()[0]}", "exec"), {})
        for command in block.commands:
            if command.startswith("nex-merge "):
                words, target = arguments(cheaper(command))
                output = invoke(words)
                if target:
                    Path(target).write_text(output, encoding="utf-8")


def test_every_substitution_is_needed():
    commands = [command for block in ALL for command in block.commands if block.reason is None]
    for said in CHEAPER:
        assert any(said in command for command in commands), said


@pytest.mark.parametrize("block", ALL, ids=lambda block: f"{block.page.stem}-{block.text.splitlines()[0][:40]}")
def test_a_block_is_of_a_kind_that_is_checked(block):
    assert block.language in LANGUAGES, block.text
    assert block.reason is None or block.reason in REASONS, block.reason
    assert block.language not in ("json", "text") or block.title, "data are shown as files, with title"
    if block.language == "json":
        for line in block.text.splitlines():
            json.loads(line)
    if block.language == "console":
        assert block.commands, "output without its command"


def test_no_comment_is_left_without_its_block():
    for page in PAGES:
        marked = sum(block.reason is not None for block in blocks(page))
        assert page.read_text(encoding="utf-8").count("<!-- not run") == marked, page.name


@pytest.mark.parametrize("command", sorted({command for block in ALL for command in block.commands}))
def test_a_command_line_can_be_read(command, monkeypatch):
    name, _, rest = command.partition(" ")
    if name == "make":
        assert re.search(rf"^{rest.split()[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
    elif name == "source":
        folder = rest.removesuffix("/bin/activate")
        assert re.search(rf"^VENV := {re.escape(folder)}$", (ROOT / "Makefile").read_text(), re.MULTILINE), command
    elif name == "pip":
        named = re.search(r"-c (\S+)", command)
        pins = (ROOT / (named[1] if named else "constraints.txt")).read_text().splitlines()
        for pin in re.findall(r"\S+==\S+", command):
            assert pin in pins, command
    elif name == "lm_eval":
        harness = pytest.importorskip("lm_eval._cli.harness")
        monkeypatch.setattr("sys.argv", ["lm_eval", *rest.split()])
        assert harness.HarnessCLI().parse_args().log_samples
    else:
        words, _ = arguments(command)
        COMMANDS[words[0]].make_context(words[0], words[1:])


@pages
def test_commands_and_options_in_a_sentence_exist(page):
    for code in re.findall(r"`(nex-merge [^`]+)`", re.sub(r"\s*\n\s*", " ", prose(page))):
        name, *words = code.split()[1:]
        options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, code


@pytest.mark.parametrize(
    "block",
    [block for block in ALL if block.language == "yaml"],
    ids=lambda block: f"{block.page.stem}-{block.text.splitlines()[0][:40]}",
)
def test_a_configuration_can_be_read(block: Block):
    given = yaml.safe_load(block.text)
    if "genome" in given:
        plan_of_evolve(given, method_specs(), block.page.name)
    elif "merge_method" in given:
        MergeConfiguration.model_validate(given)
    elif "methods" in given:
        load_space(given, method_specs(), list(dict.fromkeys(["pairs", "signs", *given.get("models", {})])))
    elif "base" in given:
        parse(FamilyConfig, given, block.page.name)
    else:
        whole = given if "family" in given else merge_mappings(shipped("qwen3_ties"), given)
        if {"dataset", "task"} & given.get("prompts", {}).keys():  # instead of the shipped file
            whole["prompts"] = given["prompts"]
        config = parse(RunConfig, whole, block.page.name)
        objective, constraints = objective_of(config.study), constraints_of(config.study)
        check_measures(config, objective, constraints)
        check_samples(config)
        check_capture(config)
        check_race(config, 24, objective, constraints)
