"""Prompts drawn for an audit, labels read as conclusions, and what they do to a run's verdict and ranking."""

import json
from pathlib import Path

import pytest

from nex_merge.errors import InputError
from nex_merge.labels.audit import (
    PAGE,
    conclude_audit,
    draw,
    earlier_labels,
    open_pool,
    options,
    pages,
    prompt_texts,
    standing,
    truth_of,
    with_labels,
)
from nex_merge.labels.audit_files import read_truths
from nex_merge.measures.consensus_verdict import Audit
from nex_merge.measures.measure import Pool, Rules
from nex_merge.records import Observation, Questions, Response, Variant
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.questions import AuditLabels, read_labels
from nex_merge.runs.rescore import rescore_run
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import ConsensusConfig
from tests.labels.answered import answer_run
from tests.rows import row_of


def pool(*answers, match="number", questions=None):
    """A pool of variants that answer prompt after prompt with these texts."""
    observations = [
        Observation([Response(p, 0, (1,), (2,), text, False) for p, text in enumerate(texts)]) for texts in answers
    ]
    variants = [Variant(f"{v:04d}", "merge", True, observation) for v, observation in enumerate(observations)]
    return Pool(variants, Rules(consensus=ConsensusConfig(match=match), questions=questions or Questions()))


def test_a_larger_draw_goes_on_where_a_smaller_one_stopped():
    first = draw(64, 12, 5)
    further = draw(64, 20, 5, first)
    assert first + further == draw(64, 20, 5) and len(set(first + further)) == 20
    assert draw(64, 12, 6) != first and draw(64, 64, 5, range(64)) == [] and len(draw(8, 20, 5)) == 8


def test_prompts_without_a_conclusion_are_drawn_and_do_not_count():
    drawn = draw(64, 12, 5, concluded=range(0, 64, 2))
    assert sum(p % 2 == 0 for p in drawn) == 12 and len(drawn) > 12 and drawn == draw(64, len(drawn), 5)
    assert drawn[-1] % 2 == 0, "the drawing ends with the last prompt that counts"


def test_every_conclusion_is_an_option_with_its_variants_and_a_response():
    found = options(pool(["So 7."], ["It is 9"], ["seven: 7"], ["nothing"]), 0)
    assert [(o.key, o.variants, o.response) for o in found] == [("7", 2, "So 7."), ("9", 1, "It is 9")]


def test_the_pool_s_conclusion_is_at_any_place_of_the_first_page():
    answers = [[str(v // 2 if v < 6 else v)] * 30 for v in range(18)]  # 0, 1, 2 twice; the others once
    asked = pool(*answers)
    assert len(options(asked, 0)) == 15
    places = set()
    for prompt in range(30):
        first, second = pages(asked, prompt, 0)
        assert len(first) == PAGE and len(second) == 6
        assert sorted(o.key for o in first + second) == sorted(o.key for o in options(asked, prompt))
        places.add([o.key for o in first].index(asked.fit.pooled[prompt]))
        assert pages(asked, prompt, 0) == [first, second], "the same whenever it is asked again"
    assert len(places) > 4


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("12.0", "12"),
        ("13", "13"),
        ("1/3", "0.333333"),
        (r"$\frac{1}{3}$", "0.333333"),
        ("99", "99"),
        ("", None),
        (" None ", None),
    ],
)
def test_answers_are_read_as_conclusions_are(answer, truth):
    assert truth_of(pool(["It is 12"], ["12"], ["13"], ["0.333333"]), 0, answer) == truth


def test_of_two_spellings_of_the_answer_the_pool_s_is_right():
    asked = pool(["1/3"], ["0.333333"], ["0.333333"])
    assert len(options(asked, 0)) == 2 and truth_of(asked, 0, "1/3") == "0.333333"


def test_none_is_a_text_where_conclusions_are_texts():
    asked = pool(["None"], ["Paris"], ["none."], match="text")
    assert truth_of(asked, 0, "none") == "none" == options(asked, 0)[0].key


def test_choices_are_letters_of_the_options():
    asked = pool(["B"], ["(C)"], match="choice", questions=Questions({0: 3}))
    assert truth_of(asked, 0, "c") == "C" and truth_of(asked, 0, "none") is None
    with pytest.raises(ValueError, match='"A" to "C"'):
        truth_of(asked, 0, "D")


@pytest.mark.parametrize(
    ("right", "n", "claimed", "word"),
    [
        (3, 12, 0.97, "contradicted"),
        (12, 12, 0.97, "in line"),
        (11, 12, 0.995, "in line"),
        (3, 3, 0.97, "too few"),
        (5, 12, 0.4, "too few"),
        (20, 50, 0.4, "in line"),
    ],
)
def test_what_labels_say_of_the_claim(right, n, claimed, word):
    assert standing(Audit(right, n, claimed)) == word


def labels_file(tmp_path, text, name="labels.jsonl"):
    path = tmp_path / name
    path.write_text(text)
    return path


TEXTS = ["What is 3 + 4?", "Twice", "Twice"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.jsonl", '{"prompt": " What is 3 + 4?\\n", "answer": 7}\n{"index": 2, "answer": null}\n'),
        ("l.csv", "prompt,answer\nWhat is 3 + 4?,7.0\n"),
        ("l.csv", "index,answer,note\n0,7,x\n2,none,\n"),
        ("l.jsonl", '{"index": 0, "answer": "7"}\n{"index": 0, "prompt": "What is 3 + 4?", "answer": "7"}\n'),
    ],
)
def test_files_of_labels(tmp_path, name, text):
    found, inside = read_truths(labels_file(tmp_path, text, name), pool(["7"] * 3, ["8"] * 3), TEXTS)
    assert found[0] == "7" and found.get(2) is None and inside == {}


def test_a_label_inside_a_conclusion_tells_nothing(tmp_path):
    said = ["The capital is Paris.", "Paris", "Rome"], ["The capital is Paris.", "It is Paris.", "Parisian"]
    labels = "".join(f'{{"index": {i}, "answer": "Paris"}}\n' for i in range(3))
    found, inside = read_truths(labels_file(tmp_path, labels), pool(*said, match="text"), TEXTS)
    assert found == {1: "paris", 2: "paris"}, "some variant concludes it, or none says it"
    assert list(inside) == [0] and inside[0].startswith("paris in ") and "capital" in inside[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "Who?", "answer": 7}', "line 2: expected a prompt of the run, got 'Who\\?'"),
        ('{"prompt": "Twice", "answer": 7}', "line 2: prompts 1, 2 of the run are all 'Twice'. Give \"index\" instead"),
        ('{"index": 3, "answer": 7}', "line 2: index: expected 0 to 2, a prompt of the run, got 3"),
        ('{"index": true, "answer": 7}', "line 2: index: expected 0 to 2, a prompt of the run, got true"),
        ('{"index": 0, "answer": 8}', "line 2: prompt 0 has the answer '8' here and '7' in .*line 1; keep one of them"),
        ('{"index": 1, "prompt": "What is 3 + 4?", "answer": 7}', "line 2: prompt 1 of the run is 'Twice', got 'What"),
        ('{"index": 1, "answer": "maybe"}', "line 2: answer 'maybe' cannot be read as number: .*leave it empty"),
        ('{"index": 1}', 'line 2: expected "answer", got the keys index'),
        ('{"answer": 1}', 'line 2: expected "index", the number of a prompt'),
        ('{"index": 1, "answer": [1]}', "line 2: answer: expected text or a number"),
        ('{"prompt": 5, "answer": 1}', "line 2: prompt: expected text, got 5"),
    ],
)
def test_a_line_that_cannot_be_meant_is_named(tmp_path, line, message):
    path = labels_file(tmp_path, '{"index": 0, "answer": 7}\n' + line)
    with pytest.raises(InputError, match=message):
        read_truths(path, pool(["7"] * 3, ["8"] * 3), TEXTS)


def test_without_the_prompts_lines_need_an_index(tmp_path):
    asked = pool(["7"], ["8"])
    assert read_truths(labels_file(tmp_path, '{"index": 0, "prompt": "x", "answer": 7}'), asked, None)[0] == {0: "7"}
    with pytest.raises(InputError, match=r'file has changed since the run was started\. Give "index" instead'):
        read_truths(labels_file(tmp_path, '{"prompt": "x", "answer": 7}'), asked, None)


@pytest.mark.parametrize(
    ("name", "message"), [("l.txt", "of type .jsonl or .csv, got"), ("l.jsonl", "holds no labels")]
)
def test_files_that_hold_no_labels(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        read_truths(labels_file(tmp_path, "\n", name), pool(["7"], ["8"]), TEXTS)


def test_known_truths_say_how_conclusions_are_read():
    asked = pool(["7"], ["8"], match="auto", questions=Questions(truths={0: "7"}, match="text"))
    assert asked.match == "text" and pool(["7"], ["8"], match="auto").match == "number"


@pytest.fixture
def run(toy_run_copy):
    """Four prompts: on three, most variants conclude the same; on the last, none concludes anything."""
    answer_run(toy_run_copy)
    return RunFolder(toy_run_copy)


def test_labels_that_contradict_turn_the_ranking_and_the_verdict(run):
    rescore_run(run, run.scoring())
    before = read_rows(run)
    asked = open_pool(run)
    assert set(asked.fit.pooled) == {0, 1, 2} and asked.fit.pooled[0] == "7"
    labels = with_labels(earlier_labels(run, asked), {0: "8", 1: "8", 2: "8", 3: None})
    outcome = conclude_audit(run, asked, labels)
    assert (outcome.audit.right, outcome.audit.n, outcome.standing) == (0, 3, "contradicted")
    assert outcome.audit.claimed > 0.9
    assert outcome.verdict.level == "insufficient" and "0 of 3 labelled prompts" in " ".join(outcome.verdict.reasons)
    consensus = {row.trial: row.value("consensus") for row in outcome.rows}
    assert consensus["base"] == 0.75 and consensus["a"] == 0 and outcome.rows == read_rows(run)
    assert read_labels(run.path) == AuditLabels("number", (0, 1, 2, 3), {0: "8", 1: "8", 2: "8", 3: None})
    assert outcome.pick_before is not None and outcome.top == 5
    # Deleting the labels and rescoring undoes it.
    (run.path / "audit.json").unlink()
    rescore_run(run, run.scoring())
    assert read_rows(run) == before


def test_the_pick_and_the_first_ranks_are_compared(run, monkeypatch):
    def rows(*trials):
        return [row_of(t, "merge" if t.isdigit() else "base", rank=i) for i, t in enumerate(trials, 1)]

    rescore_run(run, run.scoring())
    monkeypatch.setattr("nex_merge.labels.audit.read_rows", lambda run: rows("base", "0001", "0000", "0002"))
    monkeypatch.setattr("nex_merge.labels.audit.rescore_run", lambda *_: rows("base", "0000", "0001", "0002"))
    outcome = conclude_audit(run, open_pool(run), AuditLabels("number", (0,), {0: "7"}))
    assert (outcome.pick_before, outcome.pick_after) == ("0001", "0000")
    assert (outcome.changed, outcome.top) == (2, 4)


def test_labels_of_prompts_without_conclusions_say_nothing(run):
    assert conclude_audit(run, open_pool(run), AuditLabels("number", (3,), {3: "7"})) is None
    assert read_labels(run.path) is None


def test_open_ended_answers_cannot_be_audited(run):
    answer_run(run.path, lambda v, p: f"a tale of {'xyzuvw'[v % 6] * (p + 1)} and {chr(97 + v) * 3}")
    with pytest.raises(InputError, match=r"no conclusions to audit: .*open-ended.* read as text.*What would help"):
        open_pool(run)


def test_labels_that_were_read_otherwise_are_refused(run):
    asked = open_pool(run)
    conclude_audit(run, asked, AuditLabels("text", (0,), {0: "7"}))
    run.config.consensus.__dict__["match"] = "number"  # as if config.yaml had been edited
    with pytest.raises(InputError, match=r"expected labels read as number, .* got text\. Remove the file"):
        earlier_labels(run, open_pool(run))


def test_texts_are_those_of_the_prompts_file_as_long_as_it_is_the_same(run):
    texts = prompt_texts(run)
    first = json.loads(Path(run.config.prompts.file).read_text().partition("\n")[0])
    assert texts[0] == first["prompt"] and len(texts) == 4
    run.resolved["prompts_sha256"] = "other"
    assert prompt_texts(run) is None


def test_a_damaged_file_of_labels_is_named(run):
    (run.path / "audit.json").write_text('{"labels": [1]}')
    with pytest.raises(InputError, match=r"audit\.json: is damaged. Remove the file"):
        read_labels(run.path)
