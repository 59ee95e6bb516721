"""lm-evaluation-harness as a grader of resident merges, and its results files as accuracies."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.errors import InputError
from nex_merge.labels import lm_eval_grader
from nex_merge.labels.benchmark import benchmark
from nex_merge.labels.lm_eval_files import attach_mapped, attach_results, results_in
from nex_merge.labels.lm_eval_grader import TaskGrader
from nex_merge.labels.lm_eval_results import measurement_of, read_tasks
from nex_merge.runs.accuracies import read_measurements
from nex_merge.runs.export import export_trial
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.remerge import Remerger
from nex_merge.runs.rows import columns_of
from nex_merge.runs.run import RunFolder

TASKS = ["again", "which"]


@pytest.fixture(scope="module")
def tasks(toy_run, tmp_path_factory) -> Path:
    """Two tasks: to answer half of the run's prompts as trial 0 does, and to choose."""
    folder = tmp_path_factory.mktemp("tasks")
    run = RunFolder(toy_run)
    asked = [json.loads(line)["prompt"] for line in Path(run.config.prompts.file).read_text().splitlines()[:4]]
    texts = [response.text for response in run.responses("0000")]
    again = [{"q": q, "a": text if i % 2 else "no"} for i, (q, text) in enumerate(zip(asked, texts, strict=True))]
    labels = ["a1", "b2", "c1 a2"]
    which = [{"q": f"{q}\n", "options": labels, "gold": i % 3} for i, q in enumerate(asked)]
    common = {"dataset_path": "json", "test_split": "test", "doc_to_text": "{{q}}", "metadata": {"version": 1.5}}
    for name, docs, more in (
        ("again", again, {
            "output_type": "generate_until", "doc_to_target": "{{a}}",
            "generation_kwargs": {"until": ["<none>"], "max_gen_toks": 24, "do_sample": False},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        }),
        ("which", which, {
            "output_type": "multiple_choice", "doc_to_choice": "options", "doc_to_target": "gold",
            "target_delimiter": "",
        }),
    ):  # fmt: skip
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
        data = {"dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **common, **data, **more}))
    far = {"task": "far", **common, "dataset_path": "nobody/nothing", "output_type": "generate_until"}
    (folder / "far.yaml").write_text(yaml.safe_dump(far))
    return folder


def state_of(resident):
    """What lm-eval might change of a model and its tokenizer."""
    model, tokenizer = resident.model, resident.tokenizer
    return (
        model.config.to_dict(), model.generation_config.to_dict(), model.training, model.config._attn_implementation,
        tokenizer.padding_side, tokenizer.pad_token, {name: id(one) for name, one in model.named_parameters()},
        [one.requires_grad for one in model.parameters()],
    )  # fmt: skip


def test_figures_are_those_of_lm_eval_on_the_export_and_nothing_is_changed(toy_run_copy, tasks, tmp_path, monkeypatch):
    run = RunFolder(toy_run_copy)
    list(export_trial(run, "0", tmp_path / "export"))
    grader = TaskGrader(TASKS, tasks, None, print)
    remerger = Remerger(run)
    grader.prepare(remerger)
    for trial in ("a", "0000"):  # one after another: neither a task nor the model may keep anything of the first
        remerger.load(run.find(trial))
        before = state_of(remerger.resident)
        found = grader.grade()
        assert state_of(remerger.resident) == before
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    end = remerger.resident.tokenizer.convert_tokens_to_ids("</think>")
    arguments = {"pretrained": str(tmp_path / "export"), "dtype": "float32", "think_end_token": end,
                 "chat_template_args": {"enable_thinking": True}}  # fmt: skip
    manager = TaskManager(include_path=tasks, include_defaults=False)
    theirs = simple_evaluate(
        "hf", arguments, TASKS, device="cpu", task_manager=manager, apply_chat_template=True, log_samples=False
    )
    for name in TASKS:
        assert found["tasks"][name]["metrics"] == theirs["results"][name]
    again, which = (found["tasks"][name] for name in TASKS)
    assert again["accuracy"] == 0.5 and again["right_by_problem"] == "0101", "it answers as our own decoding did"
    assert (again["metric"], which["metric"]) == ("exact_match,none", "acc,none")
    assert (again["n"], again["shots"], again["version"], again["limit"]) == (4, 0, 1.5, None)
    assert found["accuracy"] == (0.5 + which["accuracy"]) / 2 and found["n"] == 8

    # The results file that lm-eval writes says which checkpoint it is of.
    file = tmp_path / "results" / "results_1.json"
    file.parent.mkdir()
    file.write_text(json.dumps(theirs, default=str))
    attach_results(run, results_in(file.parent))
    (attached,) = read_measurements(run.path, "0000")
    assert attached["tasks"]["which"]["metrics"] == which["metrics"] and attached["accuracy"] == found["accuracy"]

    notes, graded = [], []
    whole = TaskGrader.grade
    monkeypatch.setattr(TaskGrader, "grade", lambda self: graded.append(1) or whole(self))
    benchmark(run, TaskGrader(["which"], tasks, 3, notes.append), ["0000"], notes.append)
    benchmark(run, TaskGrader(["which"], tasks, 3, notes.append), ["0000"], notes.append)
    assert len(graded) == 1 and len(set(notes)) == 1, "what was measured is measured no second time"
    last, earlier = read_measurements(run.path, "0000")
    assert last["n"] == 3 and earlier["tasks"].keys() == {*TASKS}
    rows = read_rows(run)
    row = next(row for row in rows if row.trial == "0000")
    assert row.accuracy == last["accuracy"] and row.column("accuracy.again") == 0.5
    assert columns_of(rows)[columns_of(rows).index("accuracy_source") + 1 :][:2] == ["accuracy.again", "accuracy.which"]

    weights = next((tmp_path / "export").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-2] + b"\0\1")
    with pytest.raises(InputError, match=rf"{file}: its model \S+ was changed since it was exported"):
        attach_results(run, [file])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--tasks whish --include-path {tasks}", "--tasks: unknown task 'whish'. Did you mean which?"),
        ("--tasks far --include-path {tasks}", "--tasks: lm-eval can't load far: "),
        ("--tasks again,again --include-path {tasks}", "--tasks: expected every task once, got again again in again"),
        ("--tasks again --include-path nowhere", "--include-path: expected a folder with tasks as YAML files, got "),
        ("--tasks again --data x.jsonl", "benchmark: expected either --data or --tasks, got both"),
        ("--data x.jsonl --limit 3", "--limit: expected only with --tasks"),
        ("--tasks again --match number", "--match: expected only with --data"),
        ("--tasks whish --trials 99", "trial '99': not in this run"),
        ("--tasks whish --trials=", "trial '': not in this run"),
    ],
)
def test_what_is_wrong_with_tasks_is_one_sentence(words, message, toy_run, tasks, monkeypatch):
    # lm-eval's own tasks take many seconds to read.
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda **given: TaskManager(**given | {"include_defaults": False}))
    done = CliRunner().invoke(app, ["benchmark", str(toy_run), *words.format(tasks=tasks).split()])
    assert isinstance(done.exception, InputError) and str(done.exception).startswith(message)
    assert "\n" not in str(done.exception)


def test_without_lm_eval_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(lm_eval_grader, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^--tasks: needs lm-evaluation-harness; install nex-merge\[eval\]$"):
        TaskGrader(["gsm8k"], None, None, print)


def results_of(version=1.0, shots=0, limit=None, n=50, **figures):
    """A results file as lm-eval writes it."""
    figures = figures or {"x": {"acc,none": 0.5}}
    return {
        "results": figures, "group_subtasks": {}, "configs": {name: {} for name in figures},
        "versions": dict.fromkeys(figures, version), "n-shot": dict.fromkeys(figures, shots),
        "higher_is_better": {name: {key.split(",")[0]: True for key in one} for name, one in figures.items()},
        "n-samples": {name: {"original": 99, "effective": n} for name in figures}, "config": {"limit": limit},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"version": 2.0}, "x: expected the same task version, got 2.0 and 1.0"),
        ({"shots": 5}, "x: expected the same shots, got 5 and 0"),
        ({"limit": 10}, "x: expected the same limit, got 10 and null"),
        ({"n": 49}, "x: expected the same number of samples, got 49 and 50"),
        ({"y": {"acc,none": 0.5}}, "expected the same tasks, got y, and x"),
    ],
)
def test_results_that_differ_are_not_mixed(other, what, toy_run, tmp_path):
    files = [tmp_path / "1.json", tmp_path / "2.json"]
    for file, given in zip(files, ({}, other), strict=True):
        file.write_text(json.dumps(results_of(**given)))
    words = ["correlate", str(toy_run), "--map", f"0={files[0]}", "--map", f"base={files[1]}"]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, InputError) and str(done.exception).startswith(
        f"{files[1]} and {files[0]}: {what}"
    )


def test_several_tasks_have_a_column_and_a_correlation_each(toy_run_copy, tmp_path):
    words = []
    for i, trial in enumerate(["base", "a", "b", "0", "1", "2"]):
        file = tmp_path / f"{trial}.json"
        file.write_text(json.dumps(results_of(x={"acc,none": i / 10}, y={"acc,none": (5 - i) / 5})))
        words += ["--map", f"{trial}={file}"]
    done = CliRunner().invoke(app, ["correlate", str(toy_run_copy), *words, "--format", "json"])
    found = json.loads(done.stdout)
    assert found["best_accuracy"] == pytest.approx(0.5) and found["noise_ceiling"]["problems"] == 100
    one, other = (found["tasks"][name]["scores"]["nex"]["spearman"]["value"] for name in ("x", "y"))
    assert one == pytest.approx(-other) and found["tasks"]["y"]["best_trial"] == "base"
    table = CliRunner().invoke(app, ["correlate", str(toy_run_copy)]).stdout
    assert "The accuracy above is the last one measured: mean of 2 tasks: x, lm-eval " in " ".join(table.split())


def test_a_file_is_of_one_trial(toy_run, tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(results_of()))
    with pytest.raises(
        InputError, match=r"--map: expected a file for each trial, got .*r\.json for base and for trial 0"
    ):
        attach_mapped(RunFolder(toy_run), [f"base={tmp_path}/r.json", f"0={tmp_path}/../{tmp_path.name}/r.json"])


def test_without_the_hub_its_retries_are_not_waited_for(tasks, monkeypatch):
    """`datasets` retries for 20 s by itself; told that it is offline, it looks into its cache at once."""
    from datasets import config

    def load(self, names):
        assert config.HF_HUB_OFFLINE
        raise ConnectionError

    monkeypatch.setattr("nex_merge.setup.hub_datasets.is_reachable", lambda seconds: False)
    monkeypatch.setattr("lm_eval.tasks.TaskManager.load", load)
    with pytest.raises(InputError, match=r"^--tasks: lm-eval can't load again: the hub can't be reached, "):
        TaskGrader(["again"], tasks, None, print)


def test_the_metric_is_the_first_share_of_which_more_is_better():
    better = {"bleu": True, "ppl": False, "score": True, "f1": True}
    given = results_of(x={"bleu,none": 0.4, "ppl,none": 0.2, "score,none": 40.0, "f1,b": 0.3, "f1,a": 0.1})
    given["higher_is_better"]["x"] = better
    assert read_tasks(given, "here")["x"]["metric"] == "f1,b"
    del given["results"]["x"]["f1,a"], given["results"]["x"]["f1,b"]
    with pytest.raises(InputError, match=r"^here: x: expected a metric between 0 and 1 .*, got bleu,none 0.4, "):
        read_tasks(given, "here")


def test_a_group_with_a_figure_stands_for_its_tasks():
    given = results_of(g={"acc,none": 0.4}, s={"acc,none": 0.5}, t={"acc,none": 0.3}, u={"acc,none": 0.9}, empty={})
    given["group_subtasks"] = {"g": ["s", "t"], "empty": ["u"]}
    found = read_tasks(given, "here")
    assert list(found) == ["g", "u"] and found["g"]["n"] == 100 and found["g"]["parts"].keys() == {"s", "t"}
    # Tasks of 100 and 50 problems: their mean is as uncertain as that of two with 66 each.
    assert measurement_of(found)["n"] == 133


def test_a_checkpoint_of_another_run_is_refused(toy_run, toy, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(json.dumps({**results_of(), "config": {"model_args": f"pretrained={tmp_path},dtype=float32"}}))
    with pytest.raises(InputError, match="is no checkpoint folder, seen from here"):
        attach_results(RunFolder(toy_run), [file])
    fake = SimpleNamespace(results=lambda: [], path=toy_run)
    file.write_text(json.dumps({**results_of(), "config": {"model_args": {"pretrained": str(toy["base"])}}}))
    with pytest.raises(InputError, match="is no export, base or parent of this run: no trial has its tensors"):
        attach_results(fake, [file])
