"""The commands `phases` and `agreement` as a user runs them, over two small runs of base and parents."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.errors import InputError
from nex_merge.runs import files
from nex_merge.study.search import run_search
from nex_merge.setup.resolve import resolve_config
from tests.test_search import Silent

PROMPT = "pairs\na: a1 12 a2 5 a3 9 a4 3 a5 8 a? 21"


def searched(folder, **changes):
    config = {
        "search_space": "ties",
        "prompts": {"file": "configs/prompts/qwen3_tiny.jsonl", "limit": 2},
        "study": {"trials": 0},
        "output": str(folder / "run"),
        **changes,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    run_search(resolve_config(str(folder / "config.yaml"), {}), False, Silent())
    return folder / "run"


@pytest.fixture(scope="module")
def toy_run(toy, tmp_path_factory):
    return searched(
        tmp_path_factory.mktemp("toy_run"),
        family={"base": str(toy["base"]), "models": {"a": str(toy["a"])}},
        generation={"max_new_tokens": 24},
        activations={"slice_tokens": 2, "top_k": 8},
    )


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    generation = {"max_new_tokens": 160}
    return searched(tmp_path_factory.mktemp("tiny_run"), family="qwen3-tiny", models=["pairs"], generation=generation)


def run(*args):
    done = CliRunner().invoke(app, list(map(str, args)))
    assert done.exception is None, done.exception
    return done.stdout


def refused(*args):
    done = CliRunner().invoke(app, list(map(str, args)))
    assert isinstance(done.exception, InputError), done.exception
    assert done.stdout == ""
    return str(done.exception)


def test_the_first_response_of_the_first_trial_is_shown(toy_run, tmp_path):
    out = run("phases", toy_run)
    first = json.loads((toy_run / "leaderboard.json").read_text())[0]["trial"]
    assert f"trial {first} (the leaderboard's first), response 0 of 2 (the first; --response 0 to 1 shows any)" in out
    assert "rows of 2 tokens, the 8 highest scores of each kept (logit_contribution); rho 0.95, min_run 2" in out
    data = json.loads(run("phases", toy_run, "--trial", "a", "--response", 1, "--json", "--html", tmp_path / "p.html"))
    response = files.read_responses(files.trial_folder(toy_run, "a"))[1]
    assert data["text"] == response.text and data["response"] == 1 and len(data["rows"]) == 12
    assert data["score"] == files.read_scores(toy_run)["a"].response_scores[1]
    page = (tmp_path / "p.html").read_text()
    assert page.startswith("<!doctype html>") and 'class="explore"' in page


def test_a_run_is_shown_in_the_phases_its_leaderboard_rests_on(toy_run):
    assert "rho 0.95, min_run 2" in run("phases", toy_run)
    before = (toy_run / "scores.json").read_text()
    try:
        run("rescore", toy_run, "--calibration", "self", "--min-run", 6)
        out = run("phases", toy_run, "--trial", "base", "--json")
        data = json.loads(out)
        assert "min_run 6" in data["settings"]
        lengths, phases = [], [row["phase"] for row in data["rows"]]
        for place, phase in enumerate(phases):
            if place and phase == phases[place - 1]:
                lengths[-1] += 1
            else:
                lengths.append(1)
        assert min(lengths) >= 6
    finally:
        (toy_run / "scores.json").write_text(before)


def test_a_checkpoint_answers_a_prompt(toy, tmp_path):
    args = ("--set", "generation.max_new_tokens=24", "--set", "activations.slice_tokens=2")
    out = run("phases", "--model", toy["a"], "--prompt", PROMPT, *args)
    assert "rows of 2 tokens" in out and "greedy, at most 24 tokens (no family's defaults)" in out
    assert "explore (E)" in out and "Good-Mass Fraction" not in out
    short = run("phases", "--model", toy["a"], "--prompt", PROMPT, *args[:2], "--html", tmp_path / "p.html")
    assert " tokens make 1 of the 3 rows that phases take" in short and "No phases: the response is too short" in short
    assert "too short" in (tmp_path / "p.html").read_text()
    sampled = ("--set", "generation.samples=2", "--set", "generation.temperature=1.0", "--response", 1)
    assert "response 1 of 2" in run("phases", "--model", toy["a"], "--prompt", PROMPT, *args, *sampled)
    family = ("--family", "qwen3-tiny", "--set", "generation.max_new_tokens=24")
    out = run("phases", "--model", toy["a"], "--prompt", PROMPT, *family)
    assert "rows of 5 tokens, the 64 highest" in out and "at most 24 tokens (defaults of family qwen3-tiny)" in out


def test_a_checkpoint_of_a_known_family_takes_its_defaults():
    from nex_merge.inspect.checkpoint import settle

    for model in ("families/qwen3_tiny/weights/pairs", "nex_merge/families/qwen3_tiny/weights/../weights/pairs"):
        config, family = settle(model, None, {"activations": {"top_k": 32}})
        assert (family, config.activations.slice_tokens, config.activations.top_k) == ("qwen3-tiny", 5, 32)
        assert config.generation.max_new_tokens == 832
    assert settle("Qwen/Qwen3-0.6B", None, {})[1] == "qwen3-0.6b"
    assert settle("tests", None, {})[1] is None


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "give either a run folder, or --model M with --prompt TEXT"),
        (("RUN", "--model", "m", "--prompt", "p"), "give either"),
        (("--model", "m"), "give either"),
        (("RUN", "--set", "nex.rho=0.9"), "--set and --family belong to --model"),
        (("--model", "m", "--prompt", "p", "--trial", "a"), "--trial belongs to a run folder"),
        (("--model", "m", "--prompt", "  "), "--prompt: found no text"),
        (("--model", "nowhere", "--prompt", "p"), "--model: found no folder 'nowhere'"),
        (("--model", "m", "--prompt", "p", "--set", "nex.calibration=self"), "nex.calibration: unknown key"),
        (("--model", "m", "--prompt", "p", "--set", "prompts.file=x"), "prompts.file: unknown key"),
        (("--model", "m", "--prompt", "p", "--family", "qwen"), "family: found 'qwen', which is no family"),
        (("--model", "m", "--prompt", "p", "--response", "1"), "response 1: found 1 samples"),
        (("nowhere",), "nowhere: no run folder"),
        (("RUN", "--trial", "zz"), "trial 'zz': not in this run; it has base, a"),
        (("RUN", "--response", "2"), "response 2: trial"),
        (("RUN", "--response", "-1"), "has responses 0 to 1"),
        (("RUN", "--html", "tests"), "--html: tests is a folder"),
    ],
)
def test_phases_refuses_what_is_at_fault(toy_run, args, words):
    assert words in refused("phases", *(str(toy_run) if arg == "RUN" else arg for arg in args))


def test_a_run_without_scores_is_named(toy_run, tmp_path):
    (tmp_path / "config.yaml").write_text((toy_run / "config.yaml").read_text())
    assert "none of its trials is scored yet" in refused("phases", tmp_path)


def annotations(tmp_path, *lines):
    path = tmp_path / "told.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_annotations_that_repeat_the_phases_agree_wholly(toy_run, tmp_path):
    lines = []
    for number in (0, 1):
        data = json.loads(run("phases", toy_run, "--trial", "a", "--response", number, "--json"))
        for row in data["rows"]:
            if row["phase"] is not None:
                start, end = row["tokens"]
                span = {"start": start, "end": end, "unit": "tokens", "label": row["phase"]}
                lines.append({"trial": "a", "response": number, **span})
    path = annotations(tmp_path, *lines)
    found = json.loads(run("agreement", toy_run, "--annotations", path, "--json"))
    assert found["rows"]["kappa"]["value"] == found["tokens"]["kappa"]["value"] == found["f1"]["value"] == 1
    assert found["responses"] == 2 and found["tokens"]["compared"] == sum(x["end"] - x["start"] for x in lines)
    out = run("agreement", toy_run, "--annotations", path, "--trial", "a")
    assert "trial a, 2 responses annotated in" in out and "kappa, rows" in out and "100.0% the same" in out
    more = annotations(tmp_path, *lines, {"trial": "base", "response": 0, "start": 0, "end": 9, "label": "explore"})
    assert "1 lines about other trials left out" in run("agreement", toy_run, "--annotations", more, "--trial", "a")
    assert "trials a, base, 3 responses" in run("agreement", toy_run, "--annotations", more)


@pytest.mark.parametrize(
    ("line", "args", "words"),
    [
        ({"response": 2}, (), "line 1: response 2: trial"),
        ({"trial": "zz"}, (), "line 1: trial 'zz': not in this run"),
        ({"end": 10_000}, (), "line 1: end: found 10000; response 0 has"),
        ({"trial": "base"}, ("--trial", "a"), "--trial a: no line of"),
        ({"unit": "tokens", "end": 25}, (), "line 1: end: found 25; response 0 has"),
    ],
)
def test_agreement_names_lines_at_fault(toy_run, tmp_path, line, args, words):
    path = annotations(tmp_path, {"response": 0, "start": 0, "end": 4, "label": "explore", **line})
    assert words in refused("agreement", toy_run, "--annotations", path, *args)


def test_annotations_of_blanks_alone_are_no_labels(toy_run, tmp_path):
    blank = files.read_responses(toy_run / "trials" / "a")[0].text.index(" ")
    line = {"trial": "a", "response": 0, "start": blank, "end": blank + 1, "label": "explore"}
    words = refused("agreement", toy_run, "--annotations", annotations(tmp_path, line))
    assert "no annotation covers more than half of any token" in words


def test_builtin_knows_its_own_language_alone(toy_run, tiny_run):
    words = refused("agreement", toy_run, "--annotations", "builtin")
    assert "knows the language of family qwen3-tiny; this run's family is 'custom'" in words
    found = json.loads(run("agreement", tiny_run, "--annotations", "builtin", "--trial", "pairs", "--json"))
    assert found["tokens"]["compared"] > 200 and found["rows"]["compared"] > 40
    assert 0.3 < found["tokens"]["explore_wanted"] < 0.98
    assert found["tokens_without_label"] > 0 and found["f1"]["chance"] is not None
    assert found["tokens"]["kappa"]["low"] <= found["tokens"]["kappa"]["value"] <= found["tokens"]["kappa"]["high"]
    assert "labelled line by line" in run("agreement", tiny_run, "--annotations", "builtin")
