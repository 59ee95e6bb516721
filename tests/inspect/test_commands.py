"""`nex-merge phases` and `nex-merge agreement` as a user runs them."""

import json
from itertools import groupby

import pytest
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.errors import InputError
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.search import run_search

PROMPT = "pairs\na: a1 12 a2 5 a3 9 a4 3 a5 8 a? 21"


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "run"
    config = {
        "family": "qwen3-tiny",
        "models": ["pairs"],
        "search_space": "ties",
        "prompts": {"file": "configs/prompts/qwen3_tiny.jsonl", "limit": 2},
        "generation": {"max_new_tokens": 160},
        "study": {"trials": 0},
        "output": str(folder),
    }
    run_search(resolve_config(config))
    return folder


def run(*args):
    done = CliRunner().invoke(app, list(map(str, args)))
    assert done.exception is None, done.exception
    return done.stdout


def refused(*args):
    done = CliRunner().invoke(app, list(map(str, args)))
    assert isinstance(done.exception, InputError), done.exception
    assert done.stdout == ""
    return str(done.exception)


def test_default_is_the_first_response_of_the_first_trial(toy_run, tmp_path):
    out = run("phases", toy_run)
    first = json.loads((toy_run / "leaderboard.json").read_text())[0]["trial"]
    assert f"{first} (first of the leaderboard), response 0 of 4 (use --response 0 to 3 to choose)" in out
    assert "rows of 2 tokens, 8 highest scores per row (logit_contribution); rho 0.95, min_run 2" in out
    data = json.loads(run("phases", toy_run, "--trial", "a", "--response", 1, "--json", "--html", tmp_path / "p.html"))
    opened = RunFolder(toy_run)
    response, scores = opened.responses("a")[1], opened.scores()
    assert data["text"] == response.text and data["response"] == 1 and len(data["rows"]) == 12
    assert data["score"] == scores.trials["a"].response_scores[1]
    page = (tmp_path / "p.html").read_text()
    assert page.startswith("<!doctype html>") and 'class="explore"' in page


def test_phases_are_those_of_the_leaderboards_scoring(toy_run_copy):
    assert "rho 0.95, min_run 2" in run("phases", toy_run_copy)
    run("rescore", toy_run_copy, "--calibration", "self", "--min-run", 6)
    data = json.loads(run("phases", toy_run_copy, "--trial", "a", "--response", 1, "--json"))
    assert "min_run 6" in data["settings"] and len(data["rows"]) == 12
    lengths = [len(list(rows)) for _, rows in groupby(row["phase"] for row in data["rows"])]
    assert min(lengths) >= 6
    assert data["score"] == RunFolder(toy_run_copy).scores().trials["a"].response_scores[1]


def test_phases_of_a_run_load_no_weights(toy_run_copy, toy, tmp_path, monkeypatch):
    """A base on the hub: only its config and tokenizer are requested, into a folder that has no weights."""
    import huggingface_hub
    import yaml

    tokenizer_only = tmp_path / "snapshot"
    tokenizer_only.mkdir()
    for path in toy["base"].iterdir():
        if path.suffix != ".safetensors":
            (tokenizer_only / path.name).write_bytes(path.read_bytes())
    saved = yaml.safe_load((toy_run_copy / "config.yaml").read_text())
    for family in (saved["family"], saved["resolved"]["family"]):
        family["base"] = {"path": "owner/base"}
    (toy_run_copy / "config.yaml").write_text(yaml.safe_dump(saved))
    requested = []

    def download(repository, allow_patterns, **_):
        requested.append((repository, allow_patterns))
        return str(tokenizer_only)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert json.loads(run("phases", toy_run_copy, "--trial", "a", "--json"))["text"]
    assert [repository for repository, _ in requested] == ["owner/base"]
    assert not any("safetensors" in pattern and "index" not in pattern for pattern in requested[0][1])


def test_a_checkpoint_answers_a_prompt(toy, tmp_path):
    args = ("--set", "generation.max_new_tokens=24", "--set", "activations.slice_tokens=2")
    out = run("phases", "--model", toy["a"], "--prompt", PROMPT, *args)
    assert "rows of 2 tokens" in out and "greedy, at most 24 tokens (no family defaults)" in out
    assert "explore (E)" in out and "Good-Mass Fraction" not in out
    short = run("phases", "--model", toy["a"], "--prompt", PROMPT, *args[:2], "--html", tmp_path / "p.html")
    assert "No phases: the response is too short: phases need at least 3 rows, and its " in short
    assert " tokens fill 1. Generate longer responses" in short
    assert "too short" in (tmp_path / "p.html").read_text()
    sampled = ("--set", "generation.samples=2", "--set", "generation.temperature=1.0", "--response", 1)
    assert "response 1 of 2" in run("phases", "--model", toy["a"], "--prompt", PROMPT, *args, *sampled)
    family = ("--family", "qwen3-tiny", "--set", "generation.max_new_tokens=24")
    out = run("phases", "--model", toy["a"], "--prompt", PROMPT, *family)
    assert "rows of 5 tokens, 64 highest" in out and "at most 24 tokens (defaults of family qwen3-tiny)" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "phases: expected either a run folder, or --model MODEL and --prompt TEXT"),
        (("RUN", "--model", "m", "--prompt", "p"), "phases: expected either"),
        (("--model", "m"), "phases: expected either"),
        (("RUN", "--set", "nex.rho=0.9"), "--set and --family require --model"),
        (("--model", "m", "--prompt", "p", "--trial", "a"), "--trial requires a run folder"),
        (("--model", "m", "--prompt", "  "), "--prompt: expected text, got '  '"),
        (("--model", "nowhere", "--prompt", "p"), "--model: expected a checkpoint folder or a hub id"),
        (("--model", "m", "--prompt", "p", "--set", "nex.calibration=self"), "nex: unknown key 'calibration'"),
        (("--model", "m", "--prompt", "p", "--set", "prompts.file=x"), "prompts: unknown key 'file'"),
        (("--model", "m", "--prompt", "p", "--family", "qwen"), "family: unknown family 'qwen'"),
        (("--model", "m", "--prompt", "p", "--response", "1"), "--response: expected 0 to 0, got 1"),
        (("nowhere",), "nowhere: not a run folder"),
        (("RUN", "--trial", "zz"), "trial 'zz': not in this run. Trials: base, a, b, 0"),
        (("RUN", "--response", "4"), "response 4: expected 0 to 3, because b has 4"),
        (("RUN", "--response", "-1"), "response -1: expected 0 to 3"),
        (("RUN", "--html", "tests"), "--html: expected a file name, got the folder 'tests'"),
        (("RUN", "--html", "precious.jsonl"), "--html: expected a file name that ends in .html, got precious.jsonl"),
    ],
)
def test_phases_rejects_invalid_input(toy_run, args, message):
    assert message in refused("phases", *(str(toy_run) if arg == "RUN" else arg for arg in args))


def test_a_run_without_scores_is_rejected(toy_run, tmp_path):
    (tmp_path / "config.yaml").write_text((toy_run / "config.yaml").read_text())
    assert "none of its trials is scored yet" in refused("phases", tmp_path)


def annotations(tmp_path, *lines):
    path = tmp_path / "annotations.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_annotations_equal_to_the_phases_agree_perfectly(toy_run, tmp_path):
    lines = []
    for number in range(4):
        data = json.loads(run("phases", toy_run, "--trial", "a", "--response", number, "--json"))
        for row in data["rows"]:
            if row["phase"] is not None:
                start, end = row["tokens"]
                span = {"start": start, "end": end, "unit": "tokens", "label": row["phase"]}
                lines.append({"trial": "a", "response": number, **span})
    assert len({line["label"] for line in lines}) == 2, "otherwise kappa is undefined"
    count = len({line["response"] for line in lines})
    assert count > 1
    path = annotations(tmp_path, *lines)
    found = json.loads(run("agreement", toy_run, "--annotations", path, "--json"))
    assert found["rows"]["kappa"]["value"] == found["tokens"]["kappa"]["value"] == found["f1"]["value"] == 1
    assert found["responses"] == count and found["tokens"]["compared"] == sum(x["end"] - x["start"] for x in lines)
    out = run("agreement", toy_run, "--annotations", path, "--trial", "a")
    assert f"a, {count} responses annotated in" in out and "kappa, rows" in out and "100.0% equal" in out
    more = annotations(tmp_path, *lines, {"trial": "base", "response": 0, "start": 0, "end": 9, "label": "explore"})
    assert "1 line about other trials skipped" in run("agreement", toy_run, "--annotations", more, "--trial", "a")
    assert f"trials a, base, {count + 1} responses" in run("agreement", toy_run, "--annotations", more)


@pytest.mark.parametrize(
    ("line", "args", "message"),
    [
        ({"response": 4}, (), "line 1: response 4: expected 0 to 3"),
        ({"trial": "zz"}, (), "line 1: trial 'zz': not in this run"),
        ({"end": 10_000}, (), "line 1: end: expected at most "),
        ({"trial": "base"}, ("--trial", "a"), "--trial: expected a trial that"),
        (
            {"unit": "tokens", "end": 25},
            (),
            "line 1: end: expected at most 24, got 25, because response 0 has 24 tokens",
        ),
    ],
)
def test_agreement_names_the_line_at_fault(toy_run, tmp_path, line, args, message):
    path = annotations(tmp_path, {"trial": "b", "response": 0, "start": 0, "end": 4, "label": "explore", **line})
    assert message in refused("agreement", toy_run, "--annotations", path, *args)


def test_annotations_of_white_space_alone_are_rejected(toy_run, tmp_path):
    space = RunFolder(toy_run).responses("a")[0].text.index(" ")
    line = {"trial": "a", "response": 0, "start": space, "end": space + 1, "label": "explore"}
    message = refused("agreement", toy_run, "--annotations", annotations(tmp_path, line))
    assert "expected annotations that cover more than half of a token, got none" in message


def test_builtin_labels_require_the_bundled_familys_grammar(toy_run, tiny_run):
    message = refused("agreement", toy_run, "--annotations", "builtin")
    assert "--annotations builtin: expected a run of family qwen3-tiny, got family 'custom'" in message
    found = json.loads(run("agreement", tiny_run, "--annotations", "builtin", "--trial", "pairs", "--json"))
    assert found["tokens"]["compared"] > 200 and found["rows"]["compared"] > 40
    assert 0.3 < found["tokens"]["explore_wanted"] < 0.98
    assert found["tokens_without_label"] > 0 and found["f1"]["chance"] is not None
    assert found["tokens"]["kappa"]["low"] <= found["tokens"]["kappa"]["value"] <= found["tokens"]["kappa"]["high"]
    assert "labelled line by line" in run("agreement", tiny_run, "--annotations", "builtin")
