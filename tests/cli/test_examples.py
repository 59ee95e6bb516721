"""Every example in a command's help runs, and a command that ends well names the next one."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.cli.app import FIRST_STEPS

COMMANDS = typer.main.get_command(app).commands
MODEL = "nex_merge/families/qwen3_tiny/weights/pairs"
DEMO = "search configs/qwen3_ties.yaml"
# What stands for the names in the examples, and what makes them cheap. {run} and {files} are folders.
SUBSTITUTES = {
    f"{DEMO} --trials 12": f"{DEMO} --trials 2 --set prompts.limit=4 --out {{run}}",
    "dashboard results/qwen3_ties": "dashboard {run} --out {files}/study.db",
    "results/qwen3_ties": "{run}",
    "--trial 3": "--trial 1",
    "problems.jsonl": "{files}/problems.jsonl",
    "--accuracy builtin": "--accuracy builtin --problems 1",
    "--n 20": "--labels {files}/labels.csv",
    "judge.html": "{files}/judge.html",
    "answers/": "{files}/",
    "responses.jsonl": "{files}/responses.jsonl",
    "--out best": "--out {files}/best",
    "--model best": f"--model {MODEL} --set prompts.limit=1",
    "my_merge.yml": "{files}/my_merge.yml",
    "my_prompts.jsonl": "{files}/responses.jsonl",
    "my_search.yaml": "{files}/my_search.yaml",
    "--data builtin": "--data builtin --limit 1 --set prompts.limit=2",
}
# Command -> how the last line on stderr begins, and the command that it names; None: there is no next step.
NEXT = {
    "search": "Write an HTML report: nex-merge report {run} --open",
    "validate": "Search: nex-merge search configs/qwen3_ties.yaml --trials 12",
    "init": r"Check it: nex-merge validate \S+/my_search.yaml",
    "watch": "What to make of it: nex-merge leaderboard {run}",
    "methods": None, "families": None, "spaces": None, "measures": None,
    "leaderboard": r"[^:]+: nex-merge \w+ {run}",
    "rescore": r"[^:]+: nex-merge \w+ {run}",
    "report": None,  # it is open
    "dashboard": None,
    "benchmark": "Whether the measures agree with it: nex-merge correlate {run}",
    "correlate": r"The most accurate, trial \d, as a checkpoint: nex-merge export {run} --trial \d --out DIR|No merge",
    "audit": r"[^:]+: nex-merge \w+ {run}",
    "compare": "Count what comes back: nex-merge compare {run} --read FILE",
    "export": r"With labels, its accuracy: nex-merge benchmark {run} --data FILE --trials \d",
    "clean": "Remove it: nex-merge clean {run} --keep top:1 --yes",
    "consensus": None,
    "score": f"Where the score comes from, in a response: nex-merge phases --model {MODEL} --prompt TEXT",
    "select": None,
    "phases": "The neurons behind it: nex-merge neurons {run} --trial 1",
    "agreement": "The phases of a response: nex-merge phases {run}",
    "neurons": "What they do in another model: nex-merge transfer --family qwen3-tiny --from pairs --into MODEL ",
    "doctor": None,
    "transfer": "One set of neurons as a checkpoint: nex-merge transfer --family qwen3-tiny --from pairs --into signs ",
}  # fmt: skip


def example_of(name: str) -> str:
    prefix, _, line = COMMANDS[name].epilog.partition("Example: nex-merge ")
    assert prefix == "" and line.split()[0] == name
    return line


def invoke(line: str, run: Path, files: Path):
    for named, stands in SUBSTITUTES.items():
        line = line.replace(named, stands)
    words = shlex.split(line.format(run=run, files=files))
    return CliRunner().invoke(app, words, catch_exceptions=False)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """(the run that the example of `search` makes, what it printed)."""
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[2])
        return folder / "run", invoke(example_of("search"), folder / "run", folder)


@pytest.fixture
def run(searched, tmp_path):
    return Path(shutil.copytree(searched[0], tmp_path / "run"))


@pytest.fixture
def files(tmp_path):
    """The files that examples name."""
    prompts = [json.loads(line) for line in Path("configs/prompts/qwen3_tiny.jsonl").read_text().splitlines()[:4]]
    texts = [prompt["prompt"] for prompt in prompts]
    write(tmp_path / "problems.jsonl", [{"prompt": text, "answer": "7"} for text in texts[:2]])
    for seed, name in enumerate("abc"):
        write(tmp_path / f"{name}.jsonl", [{"prompt": t, "response": f"So {i + seed}"} for i, t in enumerate(texts)])
    answers = ["so 1", "it is 1", "2"]
    write(tmp_path / "responses.jsonl", [{"prompt": text, "responses": answers} for text in texts[:2]])
    family = "nex_merge/families/qwen3_tiny/weights"
    merge = {"merge_method": "slerp", "base_model": f"{family}/pairs", "models": [{"model": f"{family}/signs"}]}
    (tmp_path / "my_merge.yml").write_text(json.dumps({**merge, "parameters": {"t": 0.5}}))
    (tmp_path / "accuracy.csv").write_text("trial,accuracy\nbase,0.1\npairs,0.3\n0,0.2\n1,0.5\n")
    (tmp_path / "labels.csv").write_text("index,answer\n0,7\n1,8\n2,9\n")
    return tmp_path


def write(path: Path, items) -> None:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))


def check_next(name: str, errors: str, run: Path) -> None:
    """The last line is the expected one, comes once, and what it names is a command that can be typed."""
    lines = [line for line in errors.splitlines() if line]
    named = [line for line in lines if ": nex-merge " in line]
    if NEXT[name] is None:
        assert named == []
        return
    assert re.match(NEXT[name].replace("{run}", re.escape(str(run))), lines[-1]), lines[-1]
    commands = [line.rpartition(": nex-merge ")[2] for line in named]
    assert len(commands) == len(set(commands))
    for words in map(shlex.split, commands):
        # Placeholders in capitals stand for values; numbers have to be some.
        values = ["1" if word == "N" else word for word in words[1:]]
        COMMANDS[words[0]].make_context(words[0], values)


def test_every_command_has_an_example_and_a_next_step():
    assert set(NEXT) == set(COMMANDS)
    panels = [command.rich_help_panel.partition(":")[0] for command in COMMANDS.values()]
    assert list(dict.fromkeys(panels)) == ["Search", "Look", "Measure", "Use", "Help"]


def test_the_example_of_search(searched):
    run, done = searched
    assert done.exit_code == 0, done.stderr
    check_next("search", done.stderr, run)
    assert f"from another terminal: nex-merge watch {run}" in done.stderr


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "search"])
def test_examples_run_and_name_the_next_command(name, run, files, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda page: opened.append(page) or True)
    done = invoke(example_of(name), run, files)
    assert done.exit_code == 0, done.output
    assert bool(opened) == (name == "report")
    check_next(name, done.stderr, run)
    assert ": nex-merge " not in done.stdout, "results can be piped"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_the_example(name):
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output
    assert shown.rstrip().endswith(f"Example: nex-merge {example_of(name)}")


@pytest.mark.parametrize(
    "line",
    [
        "leaderboard {run} --format json", "leaderboard {run} --format csv", "phases {run} --json",
        "neurons {run} --trial pairs --json", "agreement {run} --annotations builtin --json",
        "audit {run} --labels {files}/labels.csv --format json", "score --cache {run}/trials/base/cache --format json",
        "correlate {run} --accuracy {files}/accuracy.csv --format json",
    ],
)  # fmt: skip
def test_output_for_programs_comes_without_advice(line, run, files):
    done = invoke(line, run, files)
    assert done.exit_code == 0, done.output
    assert "nex-merge " not in done.output.replace(str(run), "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("score --cache {run}/trials/base/cache", "nex-merge phases {run} --trial base"),
        ("report {run}", "Open it: nex-merge report {run} --open"),
        ("report {run} --out {files}/r.html", "Open it: nex-merge report {run} --out {files}/r.html --open"),
        ("neurons {run} --trial 1", "checkpoint: nex-merge export {run} --trial 1 --out DIR"),
        (
            "benchmark {run} --data problems.jsonl --trials base",
            "nex-merge benchmark {run} --data {files}/problems.jsonl",
        ),
        (
            "search configs/qwen3_ties.yaml --dry-run --seed 3",
            "Search: nex-merge search configs/qwen3_ties.yaml --seed 3",
        ),
    ],
)
def test_next_steps_of_other_uses(line, expected, run, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there is no run yet, as `make demo` leaves one
    done = invoke(line, run, files)
    assert done.exit_code == 0, done.output
    assert expected.format(run=run, files=files) in done.stderr.splitlines()[-1]


def test_a_search_that_is_not_over_is_gone_on_with(run, files):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("trials: 2", "trials: 3"))
    done = invoke("watch {run}", run, files)
    assert done.stderr.splitlines()[-1] == f"Go on with the search: nex-merge search {config}"


def test_without_arguments_the_first_steps_are_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [])
    assert (done.exit_code, done.stdout, done.stderr.strip()) == (2, "", FIRST_STEPS)
    lines = [line.strip() for line in FIRST_STEPS.splitlines() if line.startswith("  nex-merge")]
    for words in map(shlex.split, lines[:2]):
        COMMANDS[words[1]].make_context(words[1], words[2:])
    assert lines[2] == "nex-merge --help"
