"""Rows as data sets have them, samples, data sets of the `datasets` library, and tasks of the harness."""

import hashlib
import json
import sys

import pandas
import pytest

from nex_merge.errors import InputError
from nex_merge.setup import hub_datasets
from nex_merge.setup.config import PromptsConfig, parse
from nex_merge.setup.options import with_options
from nex_merge.setup.prompts import load, load_prompts
from nex_merge.setup.prompts_config import DatasetConfig, SampleConfig
from nex_merge.setup.rendering import file_notes

GSM = {"question": "2 * 9?", "answer": "18.\n#### 18"}
MMLU = {"question": "Metal?", "subject": "s", "choices": ["tin", "air"], "answer": 0}
SAID = (("system", "s"), ("human", "a"), ("gpt", "b"))
SHARE = {"conversations": [{"from": speaker, "value": text} for speaker, text in SAID]}
ALPACA = {"instruction": "Add.", "input": "1 2", "output": "3"}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
SYSTEM, USER = {"role": "system", "content": "s"}, {"role": "user", "content": "a"}
LABELS = "labels are for `nex-merge benchmark --data` and `correlate` alone"
ANSWERED = "prompts: 1 of 1 prompt ends with a message of the assistant, which is an answer and is left out"


def written(folder, name, rows):
    path = folder / name
    if name.endswith(".json"):
        path.write_text(json.dumps(rows))
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif name.endswith(".csv"):
        pandas.DataFrame(rows).to_csv(path, index=False)
    else:
        pandas.DataFrame(rows).to_parquet(path)
    return path


@pytest.mark.parametrize(
    ("row", "messages", "about", "note", "names"),
    [
        (GSM, [{**USER, "content": "2 * 9?"}], "column 'question'; not read: answer", "column 'answer' of", "jpcl"),
        (MMLU, [{**USER, "content": "Metal?\nA. tin\nB. air"}],
         "columns 'question', 'choices'; not read: subject, answer", LABELS, "jpl"),
        (SHARE, [SYSTEM, USER], "column 'conversations'", ANSWERED, "jpl"),
        (ALPACA, [{**USER, "content": "Add.\n\n1 2"}],
         "columns 'instruction', 'input'; not read: output", LABELS, "jpcl"),
        ({**ALPACA, "input": ""}, [{**USER, "content": "Add."}],
         "column 'instruction'; not read: input, output", LABELS, "jl"),
        (CHAT, [USER], "column 'messages'", ANSWERED, "jpl"),
    ],
    ids=["gsm8k", "mmlu", "sharegpt", "alpaca", "alpaca without input", "chat"],
)  # fmt: skip
def test_known_formats(tmp_path, row, messages, about, note, names):
    """As JSON, Parquet, CSV and JSONL, in files and as data sets."""
    for name in [{"j": "p.json", "p": "p.parquet", "c": "p.csv", "l": "p.jsonl"}[key] for key in names]:
        file = str(written(tmp_path, name, [row]))
        places = [PromptsConfig(file=file)]
        if name != "p.csv":
            places.append(PromptsConfig(dataset=DatasetConfig(path=file)))
        for config in places:
            found = load(config)
            [prompt] = found.prompts
            assert list(with_options(prompt, config).messages) == messages
            assert list(with_options(prompt, config.model_copy(update={"options": "appended"})).messages) == messages
            assert found.about == f"1 of {file}, {about}" and note in " ".join(found.notes)
            assert not file_notes(found.prompts, config), "options that are asked are no news"


@pytest.mark.parametrize(
    ("rows", "name", "message"),
    [
        ([GSM | ALPACA], "p.parquet", "expected one column with the prompt, got instruction and question (columns: q"),
        ([GSM | ALPACA], "p.json", "name the one that is meant: prompts.column"),
        ([GSM | {"passage": "x"}], "p.parquet", "got 'prompt'. Known columns: question, answer, passage. Name the one"),
        ([GSM | {"context": "x"}], "p.json", "got the keys question, answer, context. To use another key, set"),
        ([{"question": "a"}], "p.json", "got the keys question. To use another key, set prompts.column."),
        ([{"conversations": "a"}], "p.json", "conversations: expected a list of {from, value}, got 'a'"),
        ([{"conversations": "a"}], "p.csv", "got 'prompt'. Known columns: conversations"),
        ([{"conversations": [{"from": "tool", "value": "a"}]}], "p.json", "conversations.0.from: expected human, user"),
        ([{"conversations": [{"from": "gpt", "value": "a"}]}], "p.json", "to be the user's, got the assistant's"),
        ([{"instruction": "a", "input": 3}], "p.json", "row 1: input: expected text, got 3"),
        ([{"question": "a", "choices": ["b", "c"], "answer": 2}], "p.json", "the number of a choice, 0 to 1, got 2"),
        ([{"question": "a", "choices": {"text": ["b"], "label": ["A", "B"]}, "answerKey": "A"}], "p.json",
         "row 1: choices: expected a label for every text, got 1 of text and 2 of label"),
        ([{"question": "a", "choices": ["b"]}], "p.parquet", "row 1: choices: expected a list of 2 to 26 options, got"),
        ([{"question": "a", "choices": [], "answer": 1}], "p.json", "choices: expected a list of 2 to 26 options, got"),
        ([{"messages": None}], "p.json", 'row 1: messages: expected a list of {"role", "content"}, got null'),
    ],
)  # fmt: skip
def test_what_is_not_recognised(tmp_path, rows, name, message):
    with pytest.raises(InputError) as error:
        load(PromptsConfig(file=str(written(tmp_path, name, rows))))
    assert message in str(error.value)


def test_prompts_that_were_read_before_are_read_alike(tmp_path):
    """A prompt or messages, beside whatever else; its fingerprint is the file's."""
    file = written(tmp_path, "p.jsonl", [{"prompt": "a"} | GSM | ALPACA | {"choices": ["b", "c"]}])
    found = load(PromptsConfig(file=str(file)))
    [prompt] = found.prompts
    assert (prompt.raw, prompt.choices, prompt.lettered) == ("a", ("b", "c"), False)
    assert found.sha256() == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_sample_is_the_same_everywhere_and_part_of_larger_ones(tmp_path):
    rows = [{"prompt": str(number)} for number in range(40)]
    file = str(written(tmp_path, "p.jsonl", rows))

    def drawn(**sample):
        return [
            int(prompt.raw or "") for prompt in load_prompts(PromptsConfig(file=file, sample=SampleConfig(**sample)))
        ]

    assert drawn(n=6) == [4, 6, 14, 25, 34, 38], "whatever the machine"
    assert set(drawn(n=6)) < set(drawn(n=12)) and drawn(n=12) == sorted(drawn(n=12))
    assert drawn(n=6, seed=1) != drawn(n=6)
    found = load(PromptsConfig(file=file, sample=SampleConfig(n=64)))
    assert found.notes == (f"prompts.sample: n is 64, and {file} has 40 rows: all are used",)
    assert found.about == f"40 of 40 of {file}, drawn with seed 0, column 'prompt'"
    of_rows = PromptsConfig(dataset=DatasetConfig(path=file), sample=SampleConfig(n=6))
    assert [prompt.raw for prompt in load_prompts(of_rows)] == [str(number) for number in drawn(n=6)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "expected one of file, dataset and task, got none"),
        ({"file": "a", "task": "b"}, "got file and task; to leave one out: --set prompts.file=null"),
        ({"file": "a", "split": "train"}, "expected split with a task alone, got it with file"),
        ({"task": "a", "column": "b"}, "expected column with a file alone, got it with task"),
        ({"file": "a", "limit": 2, "sample": {"n": 1}}, "expected limit or sample, got both"),
        ({"file": "a", "sample": {"n": 0}}, "sample.n: expected a positive integer, got 0"),
        ({"dataset": {"path": "a", "column": 1}}, "dataset.column: expected a string, got 1"),
        (
            {"dataset": {"path": "a", "spilt": "b"}},
            "dataset: unknown key 'spilt'. Did you mean 'split'? Known keys: p",
        ),
    ],
)
def test_settings_that_exclude_each_other(given, message):
    with pytest.raises(InputError) as error:
        parse(PromptsConfig, given, "c")
    assert message in str(error.value)


def test_data_sets_on_disk(tmp_path):
    from datasets import Dataset, DatasetDict

    one, two = Dataset.from_list([GSM] * 3), Dataset.from_list([GSM | {"question": "other"}])
    one.save_to_disk(tmp_path / "saved")
    DatasetDict({"train": one, "test": two}).save_to_disk(tmp_path / "splits")
    (tmp_path / "folder").mkdir()
    written(tmp_path / "folder", "train.jsonl", [GSM])

    def of(folder, **settings):
        return load(PromptsConfig(dataset=DatasetConfig(path=str(tmp_path / folder), **settings)))

    assert len(of("saved").prompts) == 3 and len(of("folder").prompts) == 1
    assert len(of("splits", split="train").prompts) == 3
    assert of("splits", split="train").sha256() == of("saved").sha256() != of("splits", split="test").sha256()
    assert (
        "prompts.dataset.split: test is the split that results are reported on" in of("splits", split="test").notes[0]
    )
    for folder, settings, message in (
        ("splits", {}, "prompts.dataset.split: expected one of train, test, got none"),
        ("splits", {"split": "dev"}, "prompts.dataset.split: expected one of train, test, got 'dev'"),
        ("saved", {"column": "x"}, "prompts.dataset.column: expected a column of "),
        ("saved", {"name": "main"}, "prompts.dataset.name: expected none, as "),
        ("none/of/these", {}, "and there is no such file or folder"),
        ("folder", {"split": "dev"}, "prompts.dataset: "),
    ):
        with pytest.raises(InputError) as error:
            of(folder, **settings)
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[]", "prompts.dataset: expected at least one prompt, got none in "),
        ("a.json", "{}", "prompts.dataset: expected at least one prompt, got none in "),
        ("a.jsonl", "", "prompts.dataset: expected at least one prompt, got none in "),
        ("a.csv", "prompt\n", "prompts.dataset: expected at least one prompt, got none in "),
        ("a.csv", "prompt,prompt\na,b\n", "a.csv: the column 'prompt' occurs twice in the header"),
    ],
)
def test_data_sets_without_rows_or_with_a_column_twice(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        load(PromptsConfig(dataset=DatasetConfig(path=str(tmp_path / name))))
    assert message in str(error.value)


def test_an_empty_path_is_no_data_set():
    with pytest.raises(InputError, match=r"prompts\.dataset\.path: expected a file, a folder or .+, got ''"):
        load(PromptsConfig(dataset=DatasetConfig(path="")))


def test_a_question_may_have_an_empty_list_of_options(tmp_path):
    file = written(tmp_path, "p.json", [{"question": "a", "choices": [], "answer": "b"}])
    assert not load(PromptsConfig(file=str(file))).prompts[0].choices


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [", r"t\.yaml: cannot be loaded \(while parsing .+t\.yaml\", line 1"),
        ("group: foo\ntask: [mine]", "is a group, which has no prompts of its own; name one of its tasks"),
    ],
)
def test_task_files_that_describe_no_task(text, message, tmp_path):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load(PromptsConfig(task=str(tmp_path / "t.yaml")))


def test_a_hub_that_is_out_of_reach_is_said_at_once(monkeypatch):
    """Without the first question, `datasets` tries for 24 s."""
    import huggingface_hub
    from datasets import config

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", False)
    with pytest.raises(InputError, match=r"the hub can't be reached, and the cache of `datasets` doesn't have it"):
        hub_datasets.open_dataset(DatasetConfig(path="owner/no-such-data-set"))
    assert not config.HF_HUB_OFFLINE, "what others load is not affected"


def test_prompts_of_a_task_are_worded_by_it(tmp_path, monkeypatch):
    data = {split: str(written(tmp_path, f"{split}.jsonl", [MMLU, MMLU])) for split in ("train", "test")}
    task = {
        "task": "metals", "dataset_path": "json", "dataset_kwargs": {"data_files": data}, "training_split": "train",
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "Q: {{question}}\nA:",
        "doc_to_choice": "{{choices}}", "doc_to_target": "answer",
    }  # fmt: skip
    file = tmp_path / "metals.yaml"
    file.write_text(json.dumps(task))
    found = load(PromptsConfig(task=str(file), limit=1))
    assert [(prompt.raw, prompt.choices) for prompt in found.prompts] == [("Q: Metal?\nA:", ("tin", "air"))]
    assert found.about == f"the first 1 of {file} (train)" and not found.notes
    assert "prompts.split: test is the split that results" in load(PromptsConfig(task=str(file), split="test")).notes[0]
    with pytest.raises(InputError, match=r"prompts\.split: .+: expected one of train, test, got 'dev'"):
        load(PromptsConfig(task=str(file), split="dev"))
    file.write_text(json.dumps(task | {"doc_to_text": "{{ nothing.at.all }}"}))
    with pytest.raises(InputError, match=r"prompts\.task: .+: cannot be loaded \('nothing' is undefined\)"):
        load(PromptsConfig(task=str(file)))
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(InputError, match=r"prompts\.task: needs lm-evaluation-harness; install nex-merge\[eval\]"):
        load(PromptsConfig(task=str(file)))
