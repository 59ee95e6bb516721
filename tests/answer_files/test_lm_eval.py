"""Samples that lm-eval 0.4.13 wrote (`--log_samples`) for five merges of qwen3-tiny, and what is refused.

`sums` generates, with two filters; `differences` scores three options. evals/ has the first ten documents of each, line
for line as lm-eval wrote them.
"""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nex_merge.answer_files.ranking import rank_files
from nex_merge.cli import app
from nex_merge.errors import InputError
from tests.pages import ROOT, blocks

EVALS = Path(__file__).parent / "evals"
PAGE = ROOT / "docs" / "ranking-models-you-have.md"


@pytest.fixture
def evals(tmp_path):
    return Path(shutil.copytree(EVALS, tmp_path / "evals"))


def samples(evals, model, task):
    (found,) = (evals / model).glob(f"samples_{task}_*.jsonl")
    return found


def rewrite(file, change):
    """`change` a file's rows in place."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        change(row)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def order(found):
    return [Path(row.name).name for row in found.ranking.rows]


def test_the_page_shows_what_the_command_prints(evals, monkeypatch):
    """The ranked table, with its order and counts."""
    monkeypatch.chdir(evals.parent)
    (shown,) = [block.text for block in blocks(PAGE) if block.text.startswith("$ nex-merge consensus evals/*\n")]
    _, _, expected = shown.partition("\n")
    done = CliRunner().invoke(app, ["consensus", *map(str, sorted(Path("evals").iterdir()))], env={"COLUMNS": "120"})
    assert done.exit_code == 0 and done.stdout == expected
    places = ["evals/dare-0.5", "evals/linear", "evals/dare-0.1", "evals/dare-0.03", "evals/dare-0.05"]
    assert [line.split()[1] for line in expected.splitlines()[3:8]] == places
    assert "5 models on 20 prompts; conclusions read as choice (differences), number (sums)" in expected
    assert "never enter the ranking: the pool's conclusion is right on 18 of 20 prompts" in expected


def test_accuracy_is_what_lm_eval_itself_says(evals):
    """Of the options, by `acc`; of the sums, by the filter that reads any number."""
    for task, metric, chosen in (("differences", "acc", None), ("sums", "exact_match", "flexible-extract")):
        files = [samples(evals, folder.name, task) for folder in evals.iterdir()]
        found = rank_files(files, filtered=chosen)
        for file in files:
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            right = [row[metric] for row in rows if row["filter"] == (chosen or "none")]
            assert found.accuracy[str(file.parent)] == pytest.approx(sum(right) / 10)
        assert (found.prompts, found.labelled) == (10, 10)


def test_a_filter_that_matches_nothing_concludes_nothing(evals):
    files = [samples(evals, folder.name, "sums") for folder in evals.iterdir()]
    plain, strict = rank_files(files), rank_files(files, filtered="strict-match")
    name = str(evals / "dare-0.03")
    rows = [json.loads(line) for line in samples(evals, "dare-0.03", "sums").read_text().splitlines()]
    invalid = [row for row in rows if row["filter"] == "strict-match" and row["filtered_resps"] == ["[invalid]"]]
    assert strict.concluded[name] == 1 - len(invalid) / 10 < plain.concluded[name]
    with pytest.raises(InputError, match=r"--filter: .*samples_sums_.*no filter 'maj@8'.* \(it has strict-match, f"):
        rank_files(files, filtered="maj@8")


def test_a_verdict_on_several_tasks_says_what_each_alone_would_have(evals):
    found = rank_files(sorted(evals.iterdir()))
    alone = {
        task: rank_files([samples(evals, folder.name, task) for folder in evals.iterdir()]).ranking.verdict
        for task in ("sums", "differences")
    }
    assert found.by_task == alone and set(alone.values()) - {found.ranking.verdict}
    assert not rank_files([samples(evals, folder.name, "sums") for folder in evals.iterdir()]).by_task


def test_numbers_read_as_texts_are_said(evals):
    files = [samples(evals, folder.name, "sums") for folder in evals.iterdir()]
    said = "sums: most responses end in a number, which --match number would read"
    assert said in rank_files(files, match="text").notes and said not in rank_files(files).notes


def test_labels_never_rank(evals):
    plain = rank_files(sorted(evals.iterdir()))
    for folder in evals.iterdir():
        rewrite(samples(evals, folder.name, "sums"), lambda row: row.update(target="[1, 2]"))
        rewrite(samples(evals, folder.name, "differences"), lambda row: row.update(target="0"))
    other = rank_files(sorted(evals.iterdir()))
    assert [row.consensus for row in other.ranking.rows] == [row.consensus for row in plain.ranking.rows]
    assert other.labelled == 10 and other.accuracy != plain.accuracy and other.ranking.verdict != "sound"
    assert "sums: 10 targets are no single answers that can be read, and left out of the audit" in other.notes


def test_documents_are_matched_whatever_the_chat_template_and_what_differs_is_said(evals):
    plain = rank_files(sorted(evals.iterdir()))

    def ask_otherwise(row):
        row["prompt_hash"] = "0" * 64
        row["arguments"]["gen_args_0"]["arg_0"] = "<|user|>" + row["arguments"]["gen_args_0"]["arg_0"]
        row["arguments"]["gen_args_0"]["arg_1"]["max_gen_toks"] = 9
        row["resps"] = [row["resps"][0] * 2]

    rewrite(samples(evals, "linear", "sums"), ask_otherwise)
    found = rank_files(sorted(evals.iterdir()))
    assert (found.shared, found.ranking.rows) == (20, plain.ranking.rows)
    texts, length, repeats = found.notes
    assert texts.startswith("sums: 10 prompts are not the same texts for all models (chat template, ")
    assert length.endswith(f"max_gen_toks is 2 for {evals / 'dare-0.03'}, 9 for {evals / 'linear'}")
    assert "repeats is 1 for " in repeats


def test_documents_that_a_model_lacks_are_not_answered(evals):
    file = samples(evals, "linear", "sums")
    file.write_text("".join(line for line in file.open() if json.loads(line)["doc_id"] < 4))
    found = rank_files(sorted(evals.iterdir()))
    assert f"{evals / 'linear'}: lacks 6 of 20 prompts, which count as not answered" in found.notes
    assert found.ranking.reasons[0].startswith("only 14 of 20 prompts are in the samples of all models")
    assert order(found)[0] == "dare-0.5" and order(rank_files(sorted(evals.iterdir()), shared=True))[1] == "linear"


def test_options_beyond_the_metric_and_options_in_the_prompts(evals):
    """`acc_mutual_info` has every option scored a second time, alone; some tasks put the options into the prompts."""

    def with_mutual_information(row):
        row["metrics"].append("acc_mutual_info")
        row["arguments"] |= {f"gen_args_{3 + n}": {"arg_0": "", "arg_1": f" {n}"} for n in range(3)}
        row["resps"] += [[["0.0", "True"]]] * 3

    def in_prompts(row):
        for n, request in enumerate(row["arguments"].values()):
            request.update(arg_0=f"option {n}", arg_1=" the end")
        row["target"] = "the end"

    plain = rank_files([samples(evals, folder.name, "differences") for folder in sorted(evals.iterdir())])
    for change, labelled in ((with_mutual_information, 10), (in_prompts, 0)):
        copied = Path(shutil.copytree(EVALS, evals.parent / change.__name__))
        files = [samples(copied, folder.name, "differences") for folder in sorted(copied.iterdir())]
        for file in files:
            rewrite(file, change)
        found = rank_files(files)
        assert [row.consensus for row in found.ranking.rows] == [row.consensus for row in plain.ranking.rows]
        assert found.labelled == labelled and found.match == "choice"


def perplexity(row):
    row["arguments"] = {"gen_args_0": {"arg_0": "A text."}}


def nest(evals):
    evals.rename(evals.parent / "all")
    evals.mkdir()
    (evals.parent / "all").rename(evals / "all")


# What is done to the samples of sums of one model -> what is said.
REFUSED = [
    (lambda file: rewrite(file, perplexity),
     r"samples_sums_.* line 1: task sums: expected responses, or log-likelihoods of options"),
    (lambda file: rewrite(file, lambda row: row.pop("doc_hash")),
     r'line 1: expected text in "doc_hash", as lm-eval 0\.4\.13 writes it, got the keys doc_id, doc'),
    (lambda file: rewrite(file, lambda row: row.update(resps=[[5]])), r"line 1: expected texts as responses, got "),
    (lambda file: file.open("a").write(file.read_text()),
     r"line 21: expected each document once for each filter, got doc_id 0 as in .* line 1"),
    (lambda file: file.write_text(""), r"samples_sums_.*: expected at least one document, got none"),
    (lambda file: shutil.copy(file, file.with_name("samples_sums_2026-12-01T00-00-00.jsonl")),
     r"linear: expected one file of samples for each task, got two of sums: samples_sums_2026-11-30\S+ and samples_"),
    (lambda file: file.rename(file.parents[1] / "linear.jsonl"),
     r"linear\.jsonl: expected samples of lm-eval in a file with lm-eval's own name"),
    (lambda file: (file.parents[1] / "plain.jsonl").write_text('{"prompt": "1 + 1?", "response": "2"}'),
     r"plain\.jsonl: expected samples of lm-eval, as in .*, got other answers"),
    (lambda file: (file.parents[1] / "models").mkdir(),
     r"models: expected a folder with lm-eval's samples_TASK_TIME\.jsonl, got none in it$"),
    (lambda file: (file.parents[1] / "results_2026-11-30T10-09-07.json").write_text("{}"),
     r"results_2026-11-30T10-09-07\.json: expected samples of lm-eval .*, got its results, without responses"),
    (lambda file: nest(file.parents[1]),
     r"all: expected a folder .*, got none in it; the folders in it have some: .*all/\*$"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused(evals, spoil, words):
    spoil(samples(evals, "linear", "sums"))
    with pytest.raises(InputError, match=words):
        rank_files(sorted(evals.iterdir()))


def test_other_answers_have_no_filters_and_options_no_match(evals, tmp_path):
    plain = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]
    for file in plain:
        file.write_text('{"prompt": "1 + 1?", "response": "2"}\n')
    with pytest.raises(
        InputError, match=r"--filter: expected samples of lm-eval, as nothing else has filters, got .*a"
    ):
        rank_files(plain, filtered="none")
    scored = [samples(evals, folder.name, "differences") for folder in evals.iterdir()]
    with pytest.raises(
        InputError, match=r"--match: expected auto or choice, because options were scored in differences"
    ):
        rank_files(scored, match="number")
