"""`nex-merge transfer` on toy checkpoints, and the input it rejects."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from nex_merge.answers.conclusions import conclude, is_unfinished
from nex_merge.cli.app import app
from nex_merge.engines.observe import ObserveSettings, observe
from nex_merge.engines.transformers import CheckpointEngine
from nex_merge.errors import InputError, RunError
from nex_merge.inspect.transfer.export import _check_tensors
from nex_merge.inspect.transfer.neuron_sets import NeuronSet
from nex_merge.records import Prompt
from nex_merge.setup.config import GenerationConfig, PhasesConfig, PromptsConfig, RuntimeConfig

SHORT = ("--set", "generation.max_new_tokens=48", "--set", "activations.slice_tokens=2", "--set",
         "activations.top_k=8", "--set", "prompts.limit=12", "--set", "generation.temperature=1")  # fmt: skip
PROMPTS = ("--prompts", "configs/prompts/qwen3_tiny.jsonl")


def run(*args):
    return CliRunner().invoke(app, ["transfer", *map(str, args)])


@pytest.fixture(scope="module")
def data(toy, tmp_path_factory):
    """Three problems, of which the unmodified recipient `b` answers the first and the last correctly."""
    texts = [f"pairs\na: a1 {i} a2 3 a? 7" for i in range(8)]
    engine = CheckpointEngine(str(toy["b"]), RuntimeConfig())
    prompts = [Prompt(({"role": "user", "content": text},), text) for text in texts]
    ids = engine.encode(prompts, PromptsConfig(file="", thinking=False), 48)
    greedy = ObserveSettings(GenerationConfig(max_new_tokens=48), None, PhasesConfig())
    responses = observe(engine, ids, greedy).responses
    finished = [r for r in responses if not is_unfinished(r.text, r.truncated, thinking=False) and conclude(r.text)]
    first, second, third = finished[:3]
    answers = ((first, conclude(first.text)), (second, "zz"), (third, conclude(third.text)))
    file = tmp_path_factory.mktemp("data") / "bench.jsonl"
    lines = [{"prompt": texts[response.prompt], "answer": answer} for response, answer in answers]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def test_sets_are_measured_before_and_after(toy, data):
    done = run(
        "--from", toy["a"], "--into", toy["b"], "--count", "2,4", "--seeds", 2, *PROMPTS, *SHORT,
        "--data", data, "--match", "text", "--json", "--set", "prompts.thinking=false",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["problems"] == 3 and found["before"]["accuracy"] == pytest.approx(2 / 3)
    assert [item["neurons"] for item in found["transplants"][:3]] == ["effective", "redundant", "random"]
    assert len(found["transplants"]) == 12
    for item in found["transplants"]:
        assert sum(item["layers"].values()) == item["count"] and 0 < item["changed"] < 1
    names = {row["neurons"] for row in found["comparisons"]}
    assert names == {
        "effective", "redundant", "random", "effective - random", "effective - redundant", "redundant - random",
    }  # fmt: skip
    assert "[12/12] 4 random, seed 1: " in done.stderr


def test_export_is_the_recipient_but_for_the_chosen_neurons(toy, tmp_path):
    before = hashlib.sha256((toy["b"] / "model.safetensors").read_bytes()).hexdigest()
    out = tmp_path / "out"
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "mine").write_text("mine")
    done = run("--from", toy["a"], "--into", toy["b"], "--count", 3, "--neurons", "effective", *PROMPTS, *SHORT,
               "--out", out)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out.partial" / "mine").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.partial"]
    # Permissions as new files have them, and nothing tells where it was made.
    (tmp_path / "new").touch()
    assert {path.stat().st_mode for path in out.iterdir()} == {(tmp_path / "new").stat().st_mode}
    for path in out.iterdir():
        assert str(toy["b"].parent).encode() not in path.read_bytes(), path
    assert "verified on disk, bit for bit: 3 chosen neurons as in the donor" in done.stdout
    assert "verified with transformers: same logits as the recipient with these neurons" in done.stdout
    about = json.loads((out / "nex_merge.json").read_text())["transfer"]
    assert about["neurons"] == "effective" and len(about["keys"]) == 3 and about["recipient"] == "b"
    assert about["donor"] == "a" and about["prompts"]["file"] == "qwen3_tiny.jsonl"
    ours, theirs, written = (load_file(f / "model.safetensors") for f in (toy["b"], toy["a"], out))
    unequal = set()
    for name, tensor in written.items():
        rows = (tensor != ours[name]).nonzero().tolist()
        if rows:
            layer, axis = int(name.split(".")[2]), 1 if "down_proj" in name else 0
            unequal |= {layer << 16 | row[axis] for row in rows}
            units = sorted({row[axis] for row in rows})
            assert torch.equal(tensor.select(axis, units[0]), theirs[name].select(axis, units[0]))
    assert unequal == set(about["keys"])
    assert hashlib.sha256((toy["b"] / "model.safetensors").read_bytes()).hexdigest() == before
    again = run("--from", toy["a"], "--into", toy["b"], "--count", 3, "--neurons", "effective", *PROMPTS, *SHORT,
                "--out", out)  # fmt: skip
    assert "--out: expected a new or empty folder" in str(again.exception)
    # The check detects a single wrong number.
    chosen = NeuronSet("effective", 3, 0, np.array(about["keys"], np.uint32), 0, 0)
    assert _check_tensors(toy["a"], toy["b"], out, chosen) == 0
    for name in ("model.norm.weight", "model.layers.1.mlp.up_proj.weight"):
        wrong = {key: tensor.clone() for key, tensor in written.items()}
        wrong[name].view(-1)[5] += 1
        save_file(wrong, out / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(RunError, match=f"{name} differs from what was copied"):
            _check_tensors(toy["a"], toy["b"], out, chosen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--count": "8,x"}, "--count: expected a positive integer, got 'x'"),
        ({"--count": "0"}, "--count: expected a positive integer, got '0'"),
        ({"--neurons": "efective"}, "--neurons: unknown set 'efective'. Did you mean 'effective'?"),
        ({"--rho": "1"}, "--rho: expected a number > 0 and < 1, got 1.0"),
        ({"--data": None}, "transfer: expected --data FILE (or 'builtin') to measure, --out DIR"),
        ({"--out": "x", "--seeds": "2"}, "--out: expected a single set, count and seed"),
        ({"--prompts": "none.jsonl"}, "prompts.file: no such file: 'none.jsonl'"),
        ({"--data": "none.jsonl"}, "--data: no such file: 'none.jsonl'"),
        ({"--match": "fuzzy"}, "--match: expected number, choice, text or regex:PATTERN, got 'fuzzy'"),
        (
            {"--family": None, "--from": "./nowhere"},
            "--from: expected a checkpoint folder or a hub id (owner/name), got './nowhere'",
        ),
        ({"--from": "pears"}, "--from: unknown member 'pears' of family qwen3-tiny. Did you mean 'pairs'?"),
        ({"--into": "pairs"}, "--into: expected another model than the donor, got pairs"),
        (
            {"--data": "builtin", "--family": None, "--from": "a/b"},
            "--data: 'builtin' requires --family, the family whose problems to use",
        ),
        ({"--set": "prompts.limits=3"}, "prompts: unknown key 'limits'"),
    ],
)
def test_invalid_input_is_rejected_before_any_model_is_loaded(data, change, message, monkeypatch):
    monkeypatch.setattr("nex_merge.engines.transformers.CheckpointEngine", lambda *_: pytest.fail("loaded"))
    options = {"--from": "pairs", "--into": "signs", "--family": "qwen3-tiny", "--count": "2", "--data": str(data),
               "--match": "text", "--prompts": "configs/prompts/qwen3_tiny.jsonl", **change}  # fmt: skip
    done = run(*(part for option, value in options.items() if value is not None for part in (option, value)))
    assert isinstance(done.exception, InputError), done.output
    assert message in str(done.exception)


def test_a_truncated_checkpoint_is_rejected(toy, tmp_path, data):
    for path in toy["b"].iterdir():
        (tmp_path / path.name).write_bytes(
            path.read_bytes()[:1000] if path.suffix == ".safetensors" else path.read_bytes()
        )
    for more in (("--data", data), ("--out", tmp_path.with_name("out"), "--neurons", "effective")):
        done = run("--from", toy["a"], "--into", tmp_path, "--count", 2, *PROMPTS, *more)
        assert isinstance(done.exception, InputError), done.output
        assert "cut short" in str(done.exception) or "cannot be" in str(done.exception)


def test_different_stored_dtypes_are_rejected(toy, tmp_path):
    wide = tmp_path / "wide"
    wide.mkdir()
    for path in toy["a"].glob("*.json"):
        (wide / path.name).write_bytes(path.read_bytes())
    tensors = {name: tensor.float() for name, tensor in load_file(toy["a"] / "model.safetensors").items()}
    save_file(tensors, wide / "model.safetensors", metadata={"format": "pt"})
    done = run("--from", wide, "--into", toy["b"], "--count", 3, "--neurons", "effective", *PROMPTS, "--out",
               tmp_path / "out")  # fmt: skip
    assert "--out: expected checkpoints of one dtype, got a recipient in BF16 and a donor in F32" in str(done.exception)
    within = run("--from", toy["a"], "--into", toy["b"], "--count", 3, "--neurons", "effective", *PROMPTS, "--out",
                 toy["b"] / "out")  # fmt: skip
    assert "--out: expected a folder outside the recipient's" in str(within.exception)
