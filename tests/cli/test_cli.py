"""Commands as a user runs them: exit codes, what goes to stdout, export and score."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nex_merge.answers.conclusions import conclude
from nex_merge.runs.proof import checkpoint_digest

quick = partial(pytest.param, marks=pytest.mark.quick)
GOLDEN = Path(__file__).parents[1] / "golden"


def run(*args, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "nex_merge", *map(str, args)], capture_output=True, text=True, check=False, **kwargs
    )


@pytest.fixture(scope="module")
def finished(toy, tmp_path_factory):
    """A finished run of five merges, made by the command."""
    import yaml

    folder = tmp_path_factory.mktemp("finished")
    config = {
        "family": {"base": str(toy["base"]), "models": {"a": str(toy["a"]), "b": str(toy["b"])}},
        "search_space": "dare_ties",
        "prompts": {"file": "configs/prompts/qwen3_tiny.jsonl", "limit": 3, "thinking": False},
        "generation": {"max_new_tokens": 24},
        "activations": {"slice_tokens": 2, "top_k": 8},
        "study": {"trials": 5},
        "output": str(folder / "run"),
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(config))
    done = run("search", folder / "toy.yaml")
    assert done.returncode == 0, done.stderr
    assert "best first" in done.stdout and "[8/8]" in done.stderr
    return folder


def test_leaderboard_formats(finished):
    rows = json.loads(run("leaderboard", finished / "run", "--format", "json").stdout)
    assert len(rows) == 8 and rows == json.loads((finished / "run" / "leaderboard.json").read_text())
    assert len(run("leaderboard", finished / "run", "--format", "csv", "--top", 2).stdout.splitlines()) == 3
    told, _, table = run("leaderboard", finished / "run", "--format", "md").stdout.partition("\n\n")
    assert told.startswith("Nothing is recommended: ") and table.startswith("| # | trial | method | nex |")
    assert run("leaderboard", finished / "run", "--sort", "entropy").returncode == 0


def test_export_round_trip(finished, tmp_path):
    done = run("export", finished / "run", "--out", tmp_path / "best")
    assert done.returncode == 0, done.stderr
    assert "bit for bit" in done.stdout and "token by token" in done.stdout
    rows = json.loads(run("leaderboard", finished / "run", "--format", "json").stdout)
    best = next(row["trial"] for row in rows if row["kind"] == "merge")
    result = json.loads((finished / "run" / "trials" / best / "result.json").read_text())
    assert checkpoint_digest(tmp_path / "best") == result["weights_sha256"]
    names = {path.name for path in (tmp_path / "best").iterdir()}
    assert {"config.json", "tokenizer.json", "chat_template.jinja", "mergekit_config.yml", "README.md"} <= names
    stored = load_file(tmp_path / "best" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    again = run("export", finished / "run", "--out", tmp_path / "best")
    assert again.returncode == 2 and "expected a new or empty folder" in again.stderr


def test_export_takes_any_trial_and_names_unknown_ones(finished, tmp_path):
    assert run("export", finished / "run", "--trial", "base", "--out", tmp_path / "base").returncode == 0
    unknown = run("export", finished / "run", "--trial", 77, "--out", tmp_path / "none")
    assert unknown.returncode == 2 and "trial '77': not in this run. Trials: base, a, b, 0" in unknown.stderr


def test_export_refuses_when_a_parent_has_changed(finished, toy, tmp_path):
    changed = shutil.copytree(toy["a"], tmp_path / "a")
    tensors = load_file(changed / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] + 1
    save_file(tensors, changed / "model.safetensors", metadata={"format": "pt"})
    copy = shutil.copytree(finished / "run", tmp_path / "run")
    for path in copy.rglob("*.yaml"):
        path.write_text(path.read_text().replace(str(toy["a"]), str(changed)))
    (copy / "study.db").unlink()  # it has the hashes of these files
    done = run("export", copy, "--trial", "0", "--out", tmp_path / "out")
    assert done.returncode == 1 and "its tensors differ from those scored" in done.stderr
    assert not (tmp_path / "out").exists()


def test_score_of_a_cache(tmp_path):
    expected = json.loads((GOLDEN / "long" / "expected.json").read_text())
    done = run("score", "--cache", GOLDEN / "long", "--format", "json", "--weights-out", tmp_path / "w.npz")
    found = json.loads(done.stdout)
    assert list(found) == ["nex", "log_gap", "responses", "scored", "cycles", "fallbacks", "response_scores"]
    assert found["nex"] == pytest.approx(expected["nex"], abs=1e-6)
    with np.load(tmp_path / "w.npz") as saved:
        assert saved["keys"].tolist() == expected["weight_keys"]
    sticky = json.loads((GOLDEN / "sticky99" / "expected.json").read_text())
    done = run("score", "--cache", GOLDEN / "sticky99", "--rho", 0.99, "--min-run", 3, "--format", "json")
    assert json.loads(done.stdout)["nex"] == pytest.approx(sticky["nex"], abs=1e-6)
    archived = GOLDEN / "published" / "archived_weights.npz"
    done = run("score", "--cache", GOLDEN / "published", "--weights", archived, "--format", "json")
    published = json.loads((GOLDEN / "published" / "expected.json").read_text())
    assert json.loads(done.stdout)["response_scores"] == pytest.approx(published["archived_weights_response_scores"])


def test_score_of_a_model_is_that_of_its_trial(finished, toy):
    done = run(
        "score", "--model", toy["a"], "--prompts", "configs/prompts/qwen3_tiny.jsonl", "--set", "prompts.limit=3",
        "--set", "generation.max_new_tokens=24", "--set", "activations.slice_tokens=2",
        "--set", "activations.top_k=8", "--format", "json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(run("leaderboard", finished / "run", "--format", "json").stdout)
    assert json.loads(done.stdout)["nex"] == next(row["nex"] for row in rows if row["trial"] == "a")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        quick(("score",), "expected either --cache DIR, or --model MODEL and --prompts FILE"),
        (("score", "--cache", "nowhere"), "nowhere: no such folder"),
        (("score", "--cache", GOLDEN / "long", "--rho", 2), "--rho: expected a number > 0 and < 1, got 2.0"),
        (("score", "--cache", GOLDEN / "long", "--weights", "none.npz"), "--weights: no such file: none.npz"),
        quick(("leaderboard", "nowhere"), "nowhere: not a run folder"),
        quick(("search", "nowhere.yaml"), "nowhere.yaml: no such file"),
        (("search", "configs/qwen3_ties.yaml", "--set", "study.trails=3"), "study: unknown key 'trails'"),
        (("search", "configs/qwen3_4b_ties.yaml"), "or the bundled family qwen3-tiny"),
        (
            ("validate", "configs/qwen3_ties.yaml", "--set", "models=[a]"),
            "models.0: expected a model of family qwen3-tiny, got 'a'",
        ),
        quick(("search",), "CONFIG: is missing. See nex-merge search --help"),
        (("rescore", "nowhere", "--calibration", "self"), "nowhere: not a run folder"),
        (("benchmark", "nowhere", "--data", "none.jsonl"), "nowhere: not a run folder"),
        (("correlate", "nowhere"), "nowhere: not a run folder"),
        quick(("serach",), "no such command 'serach'. Did you mean 'search'?"),
    ],
)
def test_input_at_fault_is_exit_2_with_one_message(args, message):
    done = run(*args)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr and done.stdout == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ranks_what_is_done_and_names_the_command_that_goes_on(finished, tmp_path, number, code):
    folder = tmp_path / "a run"
    words = list(map(str, ("search", finished / "toy.yaml", "--trials", 500, "--out", folder)))
    process = subprocess.Popen(
        [sys.executable, "-m", "nex_merge", *words, "--fresh"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored where the tests run in the background
    )
    while not (folder / "trials" / "0000" / "result.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code and time.monotonic() - began < 5
    said = f"nex-merge: interrupted; what is done is kept. To go on: nex-merge {shlex.join(words)}"
    assert errors.splitlines()[-1] == said and errors.count("nex-merge:") == 1 and "Traceback" not in errors
    assert "0000" in (folder / "leaderboard.csv").read_text() and not (folder / "live.json").exists()


def test_dry_run_and_validate_say_what_would_be_done(finished):
    for args in (("validate", finished / "toy.yaml"), ("search", finished / "toy.yaml", "--dry-run")):
        done = run(*args)
        assert done.returncode == 0, done.stderr
        for word in ("recipes", "memory", "disk", "tokens", "at most 576 to generate (3 prompts"):
            assert word in done.stdout


def test_rescore_benchmark_and_correlate(finished, tmp_path):
    copy = shutil.copytree(finished / "run", tmp_path / "run")
    done = run("rescore", copy, "--calibration", "crossfit")
    assert done.returncode == 0, done.stderr
    assert "under calibration crossfit" in done.stdout and "Verdict on NEX: " in done.stdout
    asked = Path("configs/prompts/qwen3_tiny.jsonl").read_text().splitlines()[0]
    answered = (copy / "trials" / "base" / "responses.jsonl").read_text().splitlines()[0]
    labelled = {"prompt": json.loads(asked)["prompt"], "answer": conclude(json.loads(answered)["text"])}
    (tmp_path / "bench.jsonl").write_text(json.dumps(labelled) + '\n{"prompt": "signs", "answer": "zz"}\n')
    done = run("benchmark", copy, "--data", tmp_path / "bench.jsonl", "--match", "text")
    assert done.returncode == 0, done.stderr
    assert "[8/8]" in done.stderr and "0.500" in done.stdout
    done = run("correlate", copy, "--by", "method", "--plots", tmp_path / "plots")
    assert done.returncode == 0, done.stderr
    assert "8 variants with accuracy" in done.stdout and "method dare_ties: " in done.stdout
    assert (tmp_path / "plots" / "nex.png").exists()
    found = json.loads(run("correlate", copy, "--format", "json", "--by", "method").stdout)
    assert found["trials"] == 8 and set(found["by"]) == {"method dare_ties"}
    assert found["noise_ceiling"]["prompts"] == 3 and set(found["baselines"]) == {"distance", "lambda"}
    assert "Noise ceiling: " in done.stdout and "distance *" in done.stdout


@pytest.mark.parametrize(
    ("command", "listed"),
    [
        ("methods", "ties: TIES"),
        quick("families", "qwen3-4b-2507"),
        quick("spaces", "breadcrumbs"),
        quick("measures", "nex: mean Good-Mass Fraction"),
    ],
)
def test_listings(command, listed):
    assert listed in run(command).stdout


@pytest.mark.parametrize(("own", "policy"), [(None, "passive"), ("active", "active")])
def test_threads_that_wait_leave_the_cores_to_others(own, policy):
    """Two searches on the same cores would otherwise stall each other; a user's own setting stays."""
    code = (
        "import os, sys; sys.argv = ['nex-merge', 'families']\n"
        "from nex_merge.cli import main\n"
        "assert 'torch' not in sys.modules\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(os.environ['OMP_WAIT_POLICY'], file=sys.stderr)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": own} if own else {}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stderr.split()[-1] == policy
