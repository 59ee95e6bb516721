"""Ranking, ties, formats, verdicts; accuracy files."""

import csv
import io
import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from nex_merge.errors import InputError
from nex_merge.labels.accuracy_files import attach_accuracy
from nex_merge.measures import advice as advices
from nex_merge.measures.advice import ANY_PROMPTS, AUDIT, MORE_PROMPTS, MORE_VARIANTS
from nex_merge.measures.consensus_verdict import CONDITION
from nex_merge.measures.estimates import Objective, objective_of
from nex_merge.measures.registry import MEASURES, OBJECTIVES
from nex_merge.records import Advice, Estimate, NexScore, Reliability, TrialResult, Verdict
from nex_merge.runs.advice import lead, next_steps, verdict_lines
from nex_merge.runs.files import read_accuracy
from nex_merge.runs.leaderboard import as_csv, as_frame, as_json, rank, sort_rows
from nex_merge.runs.recommend import best_by
from nex_merge.runs.results import Scores, read_reliability, write_result, write_scores
from nex_merge.runs.rows import COLUMNS
from nex_merge.runs.run import RunFolder
from nex_merge.runs.tables import as_markdown, print_table, table_cells
from nex_merge.setup.study_config import StudyConfig

NEX = Objective("nex", 1)
LOOKS = "A few looks settle it: nex-merge compare results/x"


def result(trial, nex, kind="merge", state="complete", estimates=None, **fields):
    score = None
    if nex is not None:
        score = NexScore(nex, 1.0, "self", (nex,), 1, 1, 2, 1, 0.5, {})
        estimates = {"nex": Estimate(nex, nex, nex), "cycles_per_response": Estimate(2.0), **(estimates or {})}
    return TrialResult(
        trial, kind, "ties", "ties", 0, state, score=score, estimates=estimates or {}, seconds={"merge": 1.0}, **fields
    )


@pytest.fixture
def a_run(tmp_path):
    """A run folder that holds nothing but its configuration."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(
        "family: qwen3-tiny\nsearch_space: ties\nprompts: {file: x}\noutput: run\nstudy: {objective: nex}\n"
    )
    return RunFolder(folder)


RESULTS = [
    result("base", 0.5, "base"),
    result("0000", 0.7, parameters={"weight.a": 0.1}),
    result("0001", None, state="failed", reason="not finite"),
    result("0002", 0.9, parameters={"weight.a": 0.3}),
    result("0003", 0.7),
    result("0004", 0.9, state="duplicate", reason="the same recipe as trial 0002"),
]


def test_ranking():
    rows = rank(RESULTS, NEX)
    assert [(row.rank, row.trial) for row in rows] == [
        (1, "0002"), (2, "0000"), (3, "0003"), (4, "base"), (None, "0001"), (None, "0004"),
    ]  # fmt: skip
    assert rows[0].value("cycles_per_response") == 2 and rows[0].seconds == 1.0


def test_formats_hold_all_columns():
    rows = rank(RESULTS, NEX)
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert list(read[0]) == [*COLUMNS, "p.weight.a"]
    assert read[0]["nex"] == "0.9" and read[4]["nex"] == ""
    loaded = json.loads(as_json(rows))
    assert list(loaded[0]) == [*COLUMNS, "p.weight.a"] and loaded[2]["p.weight.a"] is None
    assert as_markdown(rows).splitlines()[2].startswith("| 1 | 2 | ties | 0.9000 | - | 0.900-0.900 | - | - |")


def test_sorting():
    rows = rank(RESULTS, NEX)
    assert [row.trial for row in sort_rows(rows, "p.weight.a")][:2] == ["0000", "0002"]
    with pytest.raises(InputError, match=r"unknown column 'nexx'\. Did you mean 'nex'"):
        sort_rows(rows, "nexx")


def test_collapsed_ranks_below_every_sound_one():
    beyond = [result("0005", 0.99, state="collapsed", reason="loops"), result("0006", 0.1, state="infeasible")]
    rows = rank([*RESULTS, *beyond], NEX)
    assert [(row.rank, row.trial) for row in rows][4:7] == [(5, "0006"), (6, "0005"), (None, "0001")]


def two(trial, nex, tokens, kind="merge", **fields):
    return result(trial, nex, kind, estimates={"mean_tokens": Estimate(tokens)}, **fields)


SEVERAL = Objective("nex", 1, (Objective("mean_tokens", -1),))
TWO = [
    two("base", 0.2, 90.0, "base"), two("p", 0.9, 50.0, "parent"), two("q", 0.95, 5.0, "parent"),
    two("0000", 0.7, 40.0), two("0001", 0.8, 60.0), two("0002", 0.6, 20.0), two("0003", 0.6, 70.0),
    two("0004", 0.99, 1.0, state="infeasible"), two("0005", 0.5, None), two("0006", 0.9, 1.0, state="duplicate"),
]  # fmt: skip


def test_with_several_objectives_fronts_come_first():
    """Merges are sorted among themselves; q is better than all of them, and takes none off the front."""
    rows = rank(TWO, SEVERAL)
    assert [(row.rank, row.trial, row.front) for row in rows] == [
        (1, "q", 1), (2, "p", 1), (3, "0001", 1), (4, "0000", 1), (5, "0002", 1), (6, "0003", 2), (7, "base", 3),
        (8, "0005", None), (9, "0004", None), (None, "0006", None),
    ]  # fmt: skip
    assert [row.trial for row in sort_rows(rows, "front")][:7] == [row.trial for row in rows][:7]
    assert {row.front for row in rank(TWO, NEX)} == {None}


def test_the_front_is_a_column_of_the_table_where_there_are_several():
    assert table_cells(rank(TWO, NEX))[0][:3] == ["#", "trial", "method"]
    columns, cells = table_cells(rank(TWO, SEVERAL), ["entropy", "mean_tokens"])
    assert columns[:5] == ["#", "front", "trial", "method", "entropy"] and "tokens" in columns
    assert [line["front"] for line in cells] == ["1", "1", "1", "1", "1", "2", "3", "-", "-", "-"]


def test_with_several_objectives_the_front_takes_the_place_of_the_pick():
    verdict = reliability(nex="weak", advice=(ANY_PROMPTS,))
    rows, run = rank(TWO, SEVERAL), Path("results/x")
    assert list(lead(rows, SEVERAL, verdict)) == [
        "Recommended: one of the front by NEX and mean tokens: trials 1, 0 and 2.",
        "  Best NEX (weak): trial 1, 0.8000 [0.8000, 0.8000]",
        "  Best mean tokens: trial 2, 20",
        "  No merge is better than q or p in one objective without being worse in another.",
    ]
    step = "More prompts: nex-merge search results/x/config.yaml --set prompts.limit=N --out DIR"
    export = "Export one of the front: nex-merge export results/x --trial 1 --out DIR"
    assert next_steps(rows, SEVERAL, verdict, run) == [export, step, LOOKS]
    unfit = reliability(nex="insufficient", advice=(ANY_PROMPTS,))
    assert list(lead(rows, SEVERAL, unfit))[:2] == [
        "Recommended: trial 2, by mean tokens: 20",
        "Front by NEX and mean tokens: trials 1, 0 and 2.",
    ]
    assert next_steps(rows, SEVERAL, unfit, run) == [
        "Export the best by mean tokens: nex-merge export results/x --by mean_tokens --out DIR",
        step,
        LOOKS,
    ]
    both = replace(unfit, verdicts={**unfit.verdicts, "mean_tokens": Verdict("insufficient", ("all alike",))})
    assert next_steps(rows, SEVERAL, both, run) == [step, LOOKS]
    assert next(iter(lead(rows, SEVERAL, both))) == (
        "Nothing is recommended: the verdicts on NEX and mean tokens are insufficient."
    )
    assert "Verdict on mean tokens: insufficient: all alike." in verdict_lines(both, "nex", SEVERAL.names)
    assert not any("tokens" in line for line in verdict_lines(both, "nex"))
    none = rank(TWO[:3], SEVERAL)
    assert list(lead(none, SEVERAL, verdict)) == ["Nothing is recommended: no merge has finished yet."]
    assert next_steps(rank(TWO[7:8], SEVERAL), SEVERAL, verdict, run) == [
        "No merge can be recommended for export: the only merge is beyond study.constraints."
    ]
    many = rank([two(f"{i:04d}", i / 100, float(i)) for i in range(15)], SEVERAL)
    assert next(iter(lead(many, SEVERAL, verdict))).endswith(
        "trials 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3 and 3 more."
    )


def test_a_few_reasons_are_told_of_each_state(capsys):
    beyond = [result(f"{i:04d}", 0.5, state="infeasible", reason=f"got {i}") for i in range(7)]
    failed = [result("0007", None, state="failed", reason="not finite")]
    print_table(rank([*beyond, *failed], NEX), "title", NEX)
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if "infeasible" in line and "got" in line]
    assert len(told) == 4 and "3 more infeasible; leaderboard.csv has why." in lines
    assert "trial 7 failed: not finite" in lines


def test_another_objective_and_direction():
    def with_tokens(trial, tokens):
        return result(trial, 0.5, estimates={"mean_tokens": Estimate(tokens)})

    found = [with_tokens("0000", 30.0), with_tokens("0001", 10.0), with_tokens("0002", 20.0)]
    objective = objective_of(StudyConfig(objective="mean_tokens"))
    assert [row.trial for row in rank(found, objective)] == ["0001", "0002", "0000"]
    objective = objective_of(StudyConfig(objective="mean_tokens", direction="maximize"))
    assert [row.trial for row in rank(found, objective)] == ["0000", "0002", "0001"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_can_lead_a_study(name):
    assert objective_of(StudyConfig(objective=name)) == Objective(name, MEASURES[name].direction)
    assert name in COLUMNS


def test_an_unknown_objective_is_named_with_the_nearest():
    with pytest.raises(InputError, match=r"study\.objective: unknown measure 'entropi'\. Did you mean 'entropy'"):
        objective_of(StudyConfig(objective="entropi"))
    with pytest.raises(InputError, match="measure 'log_gap' cannot be an objective"):
        objective_of(StudyConfig(objective="log_gap"))


def test_a_frame_has_every_column_and_nullable_ranks():
    frame = as_frame(rank(RESULTS, NEX))
    assert list(frame.columns) == [*COLUMNS, "p.weight.a"]
    assert frame["rank"].isna().sum() == 2 and frame["rank"].iloc[0] == 1


def test_a_row_has_its_columns_and_stays_as_it_is():
    (row,) = rank([result("0001", 0.9, parameters={"weight.a": 0.1})], Objective("entropy", -1))
    found = row.as_mapping()
    assert {*found} == {*COLUMNS, "entropy_low", "entropy_high", "p.weight.a"}
    assert all(row.column(name) == value for name, value in found.items()) and row.column("nexx") is None
    assert row.value("nex") == 0.9 and row.interval("nex") == (0.9, 0.9)
    assert row.interval("cycles_per_response") == (None, None), "no columns for it"
    with pytest.raises(FrozenInstanceError):
        row.rank = 2


def reliability(nex="weak", of_consensus="sound", advice=(), **reasons):
    verdicts = {
        "nex": Verdict(nex, reasons.get("nex", ()), advice),
        "consensus": Verdict(of_consensus, reasons.get("consensus", ()), advice),
        "agreement": Verdict("sound"),
    }
    return Reliability(nex, (), (), 5, 24, 0.7, 1.2, 0.6, 0.5, 0.2, 0.9, 0.3, verdicts=verdicts, match="number")


def test_the_verdict_in_plain_words():
    old = replace(reliability(nex="weak"), verdicts={"nex": Verdict("weak", ("few cycles",))}, match=None)
    assert verdict_lines(old, "nex") == ["Verdict on NEX: weak; this ranking is coarse.", "  - few cycles"]
    lines = verdict_lines(reliability(nex="insufficient", of_consensus="weak", consensus=("two camps",)), "nex")
    assert lines == [
        "Verdict on NEX: insufficient; this ranking supports no choice.",
        "Verdict on consensus: weak: two camps.",
        f"  {CONDITION}.",
        "Conclusions are read as number.",
    ]
    assert CONDITION in verdict_lines(reliability(), "consensus")[2]


def measured(trial, nex, consensus, kind="merge", **fields):
    found = {"consensus": Estimate(consensus, consensus - 0.1, consensus + 0.1), "agreement": Estimate(consensus / 2)}
    return result(trial, nex, kind, estimates=found, **fields)


def told(objective, verdict, *results):
    rows, run = rank(results, Objective(objective, 1)), Path("results/x")
    leading = list(lead(rows, Objective(objective, 1), verdict))
    return leading, next_steps(rows, Objective(objective, 1), verdict, run)


FOUR = (
    measured("base", 0.2, 0.3, "base"), measured("p", 0.5, 0.4, "parent"),
    measured("0000", 0.6, 0.5, is_reference=True), measured("0001", 0.9, 0.35), measured("0002", 0.7, 0.8),
)  # fmt: skip


def test_the_leaderboard_leads_with_the_pick_and_what_speaks_for_it():
    leading, steps = told("consensus", reliability(advice=(AUDIT,)), *FOUR)
    assert leading == [
        "Recommended: trial 2, by consensus (sound): 0.800 [0.700, 0.900]",
        "  Supported by agreement (sound), NEX (weak).",
    ]
    assert steps[0] == "Export the pick: nex-merge export results/x --out DIR"
    assert steps[1] == "Check a dozen answers yourself: nex-merge audit results/x"
    assert best_by(rank(FOUR, NEX), "consensus", 1).trial == "0002"


def test_a_measure_that_is_sound_and_disagrees_is_named_and_its_command_comes_once():
    leading, steps = told("nex", reliability(nex="insufficient"), *FOUR)
    assert leading == [
        "Recommended: trial 2, by consensus (sound): 0.800 [0.700, 0.900]",
        "  By consensus: equal weights (trial 0) 0.500, the best of base and parents (p) 0.400.",
        "First by NEX (insufficient): trial 1, 0.9000 [0.9000, 0.9000]",
        "  No other measure puts it above every parent and equal weights.",
    ]
    export = "nex-merge export results/x --by consensus --out DIR"
    assert steps == [f"Export the pick by consensus (sound): {export}", LOOKS]
    leading, steps = told("nex", reliability(nex="weak"), *FOUR)
    assert "consensus is sound and disagrees" in leading[-1]
    assert steps == [
        "Export the pick: nex-merge export results/x --out DIR",
        f"Or the pick by consensus (sound): {export}",
        LOOKS,
    ]


def test_noise_is_not_offered_for_export_and_each_advice_comes_once_with_its_command():
    advice = (ANY_PROMPTS, MORE_VARIANTS, AUDIT)
    none = reliability(nex="insufficient", of_consensus="insufficient", advice=advice)
    _, steps = told("consensus", none, *FOUR)
    assert steps == [
        "More prompts: nex-merge search results/x/config.yaml --set prompts.limit=N --out DIR",
        "More merges: nex-merge search results/x/config.yaml --trials 20",
        "Check a dozen answers yourself: nex-merge audit results/x",
        LOOKS,
        "Until then, equal weights need no ranking: nex-merge export results/x --trial 0 --out DIR",
    ]
    unlike = [measured("0000", 0.6, 0.5, is_reference=True, state="infeasible"), *FOUR[3:]]
    assert not any("equal weights" in step for step in told("consensus", none, *unlike)[1])
    weak = reliability(of_consensus="insufficient", advice=(ANY_PROMPTS, ANY_PROMPTS))
    assert told("consensus", weak, *FOUR)[1] == [
        "Export the pick by NEX (weak): nex-merge export results/x --by nex --out DIR",
        "More prompts: nex-merge search results/x/config.yaml --set prompts.limit=N --out DIR",
        LOOKS,
    ]
    assert told("consensus", reliability(), FOUR[0])[1] == [
        "No merge can be recommended for export: no merge has finished yet."
    ]


@pytest.mark.parametrize(
    ("given", "step"),
    [
        (advices.AUDIT, "Check a dozen answers yourself: nex-merge audit results/x"),
        (advices.UNRACED, "The same search without racing: {} --set study.pruner=none --out DIR"),
        (advices.PROMPTS_OR_LONGER, "More prompts, or longer responses: {} --set prompts.limit=N --out DIR"),
        (advices.HIGHER, "A higher generation.max_new_tokens: {} --set generation.max_new_tokens=N --out DIR"),
        (advices.SHORT_ANSWERS, "Prompts with short answers: {} --set prompts.file=FILE --out DIR"),
        (advices.OPEN_ENDED, "Prompts with short answers, or another consensus.match: {} --set prompts.file=FILE --out "
         "DIR"),
        (advices.SHOW_OPTIONS, "Prompts whose text shows their options (prompts.options=appended), or another "
         "consensus.match: {} --set prompts.options=appended --out DIR"),
        (advices.LABELS, "A look at the responses, and accuracy for a few variants (benchmark, correlate): nex-merge "
         "benchmark results/x --data FILE"),
        (advices.LOOK, "A look at the responses, and whether prompts and chat template suit these models."),
        (advices.OTHER_MATCH, "Another consensus.match."),
        (Advice("more prompts of another kind"), "More prompts of another kind."),
    ],
    ids=lambda value: value.text if isinstance(value, Advice) else "",
)  # fmt: skip
def test_every_advice_has_the_step_that_follows(given, step):
    _, steps = told("consensus", reliability(advice=(given,)), *FOUR)
    assert steps[1] == step.format("nex-merge search results/x/config.yaml")


def test_files_keep_the_text_of_advice(tmp_path):
    verdict = reliability(advice=(MORE_PROMPTS, AUDIT, Advice("advice of another version")))
    write_scores(tmp_path, Scores("self", 0.9, 3), verdict)
    kept = json.loads((tmp_path / "reliability.json").read_text())
    assert kept["verdicts"]["nex"]["advice"] == ["more prompts, or harder ones", "audit", "advice of another version"]
    assert read_reliability(tmp_path) == verdict


def test_a_list_of_recipes_has_an_end():
    listed = measured("0003", 0.3, 0.3, parameters={"recipe": "one.yaml"})
    _, steps = told("consensus", reliability(advice=(MORE_VARIANTS,)), *FOUR, listed)
    assert steps[1] == "More merges (--trials)."


def test_a_pick_that_a_parent_beats_is_not_offered_instead():
    weak = reliability(of_consensus="insufficient", advice=(ANY_PROMPTS,))
    steps = told("consensus", weak, *FOUR, measured("q", 0.95, 0.1, "parent"))[1]
    offered = [step.partition(":")[0] for step in steps]
    assert offered == [
        "More prompts", "A few looks settle it", "Until then, equal weights need no ranking",
    ], "by NEX, q is better"  # fmt: skip


def test_comparing_is_advised_unless_the_odds_are_settled():
    def advised(odds, **verdicts):
        settled = Estimate(0.8, 0.7, 0.9, beats_parent=odds)
        pick = result("0002", 0.7, estimates={"consensus": settled, "agreement": Estimate(0.4)})
        steps = told("consensus", reliability(**verdicts), *FOUR[:4], pick)[1]
        return LOOKS in steps

    assert advised(None) and advised(0.94) and not advised(0.96)
    assert advised(0.96, of_consensus="insufficient")
    assert LOOKS not in told("consensus", reliability(), *FOUR[2:])[1], "there is nothing to compare it with"


def test_one_command_is_advised_once_and_says_where_prompts_are_lacking(tmp_path):
    advice = (MORE_PROMPTS, ANY_PROMPTS)
    verdict = reliability(nex="insufficient", of_consensus="insufficient", advice=advice)
    (tmp_path / "config.yaml").write_text("prompts: {file: mine.csv, limit: null}")
    rows = rank(FOUR, Objective("consensus", 1))
    steps = next_steps(rows, Objective("consensus", 1), verdict, tmp_path)
    search = f"nex-merge search {tmp_path / 'config.yaml'} --out DIR"
    assert steps[0] == f"More prompts, or harder ones, added to mine.csv: {search}" and len(steps) == 3


def test_a_parent_above_every_merge_is_said():
    leading, _ = told("consensus", reliability(), *FOUR, measured("q", 0.1, 0.95, "parent"))
    assert "  Above it: q 0.950. By consensus, no merge is better." in leading


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "trial,acc\nbase,1\n",
            "a.csv line 2: expected a column 'accuracy', and 'trial' or 'recipe', got trial, acc",
        ),
        (
            "a.csv",
            "trial,accuracy\nbase,70\n",
            "line 2: accuracy: expected a number between 0 and 1, got '70'. If it is in percent, write 0.7",
        ),
        ("a.csv", "trial,accuracy\nbase,high\n", "got 'high'"),
        ("a.csv", "trial,accuracy\n99,0.5\n", "line 2: trial '99': not in this run. Trials: base"),
        ("a.json", "[", "not valid JSON"),
        ("a.json", "[]", "got no rows"),
        ("a.csv", "trial,task,accuracy\nbase,x,0.5\nbase,y,0.7\n", "line 3: expected one accuracy per trial, got an"),
        ("a.csv", "trial,task,accuracy\nbase,x,0.5\nbase,y,0.7\n", "another of base, as in line 2. If the"),
        ("a.csv", "trial,accuracy\nbase,0,5\n", "line 2: expected 2 fields, as in the header, got 3"),
        ("a.csv", "trial,accuracy\nbase,NA\n", "line 2: accuracy: expected a number between 0 and 1, got 'NA'"),
        ("a.csv", "trial,accuracy\nbase,\n", "line 2: accuracy: expected a number between 0 and 1, got ''"),
        ("a.csv", "trial,accuracy\nbase,0_1\n", "got '0_1'"),
        ("a.csv", "trial;accuracy\nbase;0,5\n", "expected fields separated by commas, got semicolons"),
        ("a.csv", "trial,accuracy,accuracy\nbase,1,0\n", "the column 'accuracy' occurs twice in the header"),
        ("a.json", '{"base": 0.5, "base": 0.6}', "the key 'base' occurs twice"),
        ("a.json", '[{"trial": "base", "accuracy": NaN}]', "NaN is not a JSON value"),
        (
            "a.json",
            '[{"trial": "base", "accuracy": true}]',
            "row 1: accuracy: expected a number between 0 and 1, got t",
        ),
        ("a.json", '{"base": {"x": 0.5}}', "key 'base': accuracy: expected a number between 0 and 1, got {x: 0.5}"),
        ("a.jsonl", '{"trial": 1.5, "accuracy": 1}\n', "line 1: trial: expected a trial's id, got 1.5"),
        ("a.csv", "recipe,accuracy\nnone.yaml,1\n", "line 2: recipe: no such file: 'none.yaml'"),
        ("a.json", '[{"accuracy": 0.5}]', "row 1: expected a trial's id or the path of its recipe.yaml"),
        ("a.txt", "", "expected a .csv or .json file"),
        ("a.csv", "trial,accuracy,n\nbase,0.5,1.5\n", "line 2: n: expected the number of problems, an integer above 0"),
        ("a.json", '[{"trial": "base", "accuracy": 0.5, "n": true}]', "row 1: n: expected the number of problems"),
    ],
)
def test_accuracy_files(a_run, tmp_path, name, text, message):
    write_result(a_run.path, RESULTS[0])
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        attach_accuracy(a_run, tmp_path / name)
    assert message in str(error.value)


def test_accuracy_in_other_encodings(a_run, tmp_path):
    write_result(a_run.path, RESULTS[0])
    (tmp_path / "a.csv").write_bytes("\ufefftrial, accuracy\r\nbase,2.5e-1\r\n".encode("utf-16-le"))
    attach_accuracy(a_run, tmp_path / "a.csv")
    assert read_accuracy(a_run.path, "base") == {"accuracy": 0.25, "source": str(tmp_path / "a.csv")}


def test_accuracy_with_its_number_of_problems(a_run, tmp_path):
    for item in RESULTS[:2]:
        write_result(a_run.path, item)
    second = RESULTS[1].trial
    (tmp_path / "a.csv").write_text(f"trial,accuracy,n\nbase,0.25,128\n{second},0.5,\n")
    attach_accuracy(a_run, tmp_path / "a.csv")
    assert read_accuracy(a_run.path, "base")["n"] == 128 and "n" not in read_accuracy(a_run.path, second)


def test_accuracy_joins_the_leaderboard(a_run, tmp_path):
    from nex_merge.runs.leaderboard import write_leaderboard

    for item in RESULTS:
        write_result(a_run.path, item)
    (tmp_path / "a.json").write_text('{"base": 0.25, "2": 0.75}')
    attach_accuracy(a_run, tmp_path / "a.json")
    assert {row.trial: row.accuracy for row in write_leaderboard(a_run)}["0002"] == 0.75
