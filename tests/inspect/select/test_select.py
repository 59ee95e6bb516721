"""Selection rules against brute force, calibration on a set's own candidates, accuracies, and the command by hand."""

import ast
import json
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nex_merge.cli.app import app
from nex_merge.errors import InputError
from nex_merge.inspect.select import accuracy, rules
from nex_merge.inspect.select.pool import Pool
from nex_merge.inspect.select.questions import configure, encode_texts, read_questions
from nex_merge.inspect.select.selection import conclusion_of
from nex_merge.inspect.select.selectors import SELECTORS, Candidates, score_sets
from nex_merge.labels.benchmark import concluded, matcher
from nex_merge.nex.calibration import calibrate
from nex_merge.nex.good_mass import weigh
from nex_merge.records import Credits, NeuronWeights, Response, SparseGroups
from nex_merge.study.trial import load_tokenizer
from nex_merge.setup.config import PromptsConfig


def some_scores(rng, *shape):
    """Scores with many ties and some that are undefined."""
    scores = rng.integers(0, 3, shape).astype(float)
    scores[rng.random(shape) < 0.2] = np.nan
    return scores


def some_sets(rng, count, empty=0.1):
    return [
        rng.choice(40, 0 if rng.random() < empty else rng.integers(1, 25), replace=False).astype(np.uint32)
        for _ in range(count)
    ]


# Rules


def test_the_rules_know_arrays_alone():
    tree = ast.parse(Path(rules.__file__).read_text())
    known = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    known |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert known == {"numpy", "math"}


def test_ranking_leaders_and_expected_right():
    rng = np.random.default_rng(0)
    scores, right = some_scores(rng, 200, 5), rng.random((200, 5)) < 0.5
    conclusions = rng.integers(-1, 2, (200, 5))
    order, leading = rules.ranking(scores), rules.leaders(scores)
    expected, open_ = rules.expected_right(scores, right), rules.undecided(scores, conclusions)
    for i, own in enumerate(scores):
        value = [-np.inf if np.isnan(s) else s for s in own]
        assert order[i].tolist() == sorted(range(5), key=lambda j: (-value[j], j))
        top = [j for j in range(5) if value[j] == max(value)]
        assert np.flatnonzero(leading[i]).tolist() == top
        assert expected[i] == pytest.approx(np.mean([right[i, j] for j in top]))
        assert open_[i] == (len({int(conclusions[i, j]) for j in top}) > 1)


def test_sums_in_another_order_are_ties():
    assert rules.leaders(np.array([0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1])).all()


def test_votes():
    rng = np.random.default_rng(1)
    conclusions = rng.integers(-1, 3, (50, 6))
    for own, found in zip(conclusions, rules.votes(conclusions), strict=True):
        counts = Counter(own.tolist())
        assert [None if np.isnan(v) else v for v in found] == [None if c < 0 else counts[c] for c in own.tolist()]


def test_similarities_medoid_and_neighbours():
    rng = np.random.default_rng(2)
    for _ in range(30):
        sets = some_sets(rng, 6)
        plain = [set(own.tolist()) for own in sets]
        found = rules.similarities(sets)
        for i, j in np.ndindex(6, 6):
            if plain[i] and plain[j]:
                assert found[i, j] == pytest.approx(len(plain[i] & plain[j]) / len(plain[i] | plain[j]))
            else:
                assert np.isnan(found[i, j])
        present = [i for i in range(6) if plain[i]]
        for k, scores in ((5, rules.medoid(found)), (2, rules.neighbours(found, 2)), (5, rules.neighbours(found, 9))):
            for i in range(6):
                others = sorted((found[i, j] for j in present if j != i and i in present), reverse=True)
                assert scores[i] == pytest.approx(np.mean(others[:k])) if others else np.isnan(scores[i])
        # The medoid as it is usually defined: the smallest mean distance, to all including itself.
        if len(present) == 6:
            assert rules.ranking(rules.medoid(found))[0] == np.argmin((1 - found).mean(1).round(12))
        stacked = np.stack([found, found[::-1, ::-1]])
        np.testing.assert_array_equal(rules.neighbours(stacked)[0], rules.neighbours(found))


def test_two_candidates_are_each_others_medoid_and_one_has_none():
    two = rules.similarities([np.array([1, 2, 3]), np.array([3, 4])])
    assert rules.leaders(rules.medoid(two)).all() and rules.leaders(rules.neighbours(two)).all()
    assert np.isnan(rules.medoid(two[:1, :1])).all() and rules.ranking(rules.medoid(two[:1, :1])).tolist() == [0]


def test_any_right_counts_the_sets():
    for right in range(7):
        for chosen in range(1, 7):
            sets = list(combinations([True] * right + [False] * (6 - right), chosen))
            assert rules.any_right(6, right, chosen) == pytest.approx(np.mean([any(own) for own in sets]))


# Calibration


def some_pool(rng, sets):
    """Masses on these sets of neurons, and credit on some of each."""
    ptr = np.concatenate([[0], np.cumsum([len(own) for own in sets])])
    keys = np.concatenate([np.sort(own) for own in sets]).astype(np.uint32)
    base = SparseGroups(ptr, keys, rng.random(len(keys)).astype(np.float16))
    credited = rng.random(len(keys)) < 0.5
    bounds = np.concatenate([[0], np.cumsum(credited)])[ptr]
    effective, redundant = (rng.random(credited.sum()).astype(np.float32) for _ in range(2))
    return base, Credits(bounds, keys[credited], effective, redundant)


def test_the_pool_gives_the_numbers_of_nex():
    rng = np.random.default_rng(3)
    base, credits = some_pool(rng, some_sets(rng, 12))
    pool, everyone = Pool(base, credits), np.arange(12)
    weights = calibrate(credits)
    own = pool.calibrate(everyone)
    np.testing.assert_array_equal(own.keys, weights.keys)
    np.testing.assert_allclose(own.weights, weights.weights, rtol=1e-6)
    given = NeuronWeights(np.array([3, 5, 999], np.uint32), np.array([1, -0.5, 1], np.float32))
    for w in (weights, given):
        wanted = [weigh(base, i, w).fraction for i in range(12)]
        found = [None if np.isnan(g) else g for g in pool.fractions(everyone, w)]
        assert found == pytest.approx(wanted)


def some_candidates(rng, counts, **changes):
    """Candidates at random, as many of each prompt as `counts` says, some of them empty."""
    sets = some_sets(rng, sum(counts))
    return assemble(rng, sets, counts, *some_pool(rng, sets), **changes)


def assemble(rng, sets, counts, base, credits, **changes):
    empty = np.array([len(own) == 0 for own in sets])
    bounds = np.concatenate([[0], np.cumsum(counts)])
    numbers = {
        name: np.where(empty, np.nan, rng.integers(1, 5, len(sets)))
        for name in ("tokens", "entropy", "self_certainty", "neurons")
    }
    found = {
        "prompts": np.repeat(np.arange(len(counts)), counts),
        "conclusions": np.where(empty, -1, rng.integers(-1, 3, len(sets))),
        "similarity": tuple(rules.similarities(sets[a:b]) for a, b in pairwise(bounds)),
        "pool": Pool(base, credits),
        **numbers,
        **changes,
    }
    return Candidates(**found)


@pytest.mark.parametrize("calibration", ["pool", "prompt"])
def test_a_set_is_scored_as_a_file_of_its_own(calibration):
    rng = np.random.default_rng(4)
    counts = [6, 5, 7]
    sets = some_sets(rng, sum(counts))
    base, credits = some_pool(rng, sets)
    whole = assemble(np.random.default_rng(5), sets, counts, base, credits, calibration=calibration)
    drawn = accuracy.draw_sets(whole.starts, 3, count=4, seed=0)
    found = score_sets(whole, drawn)
    assert list(found) == list(SELECTORS)
    for i in range(4):
        chosen = np.concatenate([own[i] for own in drawn])
        parts = [base.group(int(r)) for r in chosen]
        ptr = np.concatenate([[0], np.cumsum([len(keys) for keys, _ in parts])])
        own_base = SparseGroups(ptr, *(np.concatenate(values) for values in zip(*parts, strict=True)))
        own_credit = [credits.of(int(r)) for r in chosen]
        own_credits = Credits(
            np.concatenate([[0], np.cumsum([len(c.keys) for c in own_credit])]),
            *(np.concatenate([getattr(c, n) for c in own_credit]) for n in ("keys", "effective", "redundant")),
        )
        names = ("tokens", "entropy", "self_certainty", "neurons", "conclusions")
        alone = assemble(
            rng, [sets[r] for r in chosen], [3, 3, 3], own_base, own_credits, calibration=calibration,
            **{name: getattr(whole, name)[chosen] for name in names},
        )  # fmt: skip
        for name, scores in score_sets(alone, alone.whole()).items():
            for own, other in zip(scores, found[name], strict=True):
                np.testing.assert_allclose(own[0], other[i], rtol=1e-6, err_msg=name)


def test_fewer_candidates_do_not_profit_from_more():
    rng = np.random.default_rng(6)
    candidates = some_candidates(rng, [8, 8])
    few = [own[:, :3] for own in candidates.whole()]
    fractions = candidates.pool.fractions(few[0][0], candidates.pool.calibrate(np.arange(16)))
    assert not np.allclose(score_sets(candidates, few)["nex"][0][0], fractions, equal_nan=True)


# Accuracy


def outcomes(candidates, right, sets):
    return accuracy.outcomes(score_sets(candidates, sets), candidates, right, sets)


def test_outcomes_over_all_sets_are_the_exact_expectation():
    rng = np.random.default_rng(7)
    candidates = some_candidates(rng, [6])
    right = rng.random(6) < 0.5
    sets = np.array(list(combinations(range(6), 3)))
    found = outcomes(candidates, right, [sets])
    assert found["random"].right[0] == pytest.approx(np.mean([right[list(own)].mean() for own in sets]))
    assert found["oracle"].right[0] == pytest.approx(np.mean([right[list(own)].any() for own in sets]))
    tokens = candidates.tokens
    picks = []
    for own in sets:
        known = [j for j in own if not np.isnan(tokens[j])]
        top = [j for j in known if tokens[j] == min(tokens[known])] if known else list(own)
        picks.append(right[top].mean())
    assert found["shortest"].right[0] == pytest.approx(np.mean(picks))


def test_random_sets_approach_all_sets_and_are_the_same_every_time():
    rng = np.random.default_rng(8)
    candidates = some_candidates(rng, [6])
    right = rng.random(6) < 0.5
    exact = outcomes(candidates, right, [np.array(list(combinations(range(6), 3)))])
    drawn = accuracy.draw_sets(candidates.starts, 3, count=4000)
    assert all(len(set(own)) == 3 for own in drawn[0].tolist())
    found = outcomes(candidates, right, drawn)
    for name, outcome in found.items():
        assert outcome.right == pytest.approx(exact[name].right, abs=0.03), name
    np.testing.assert_array_equal(drawn[0], accuracy.draw_sets(candidates.starts, 3, count=4000)[0])


def test_every_candidate_is_in_as_many_sets():
    for n, size in ((16, 4), (16, 8), (6, 2)):
        (sets,) = accuracy.draw_sets(np.array([0, n]), size, count=12 * n // size)
        assert np.bincount(sets.ravel()).tolist() == [12] * n
        assert all(len(set(own)) == size for own in sets.tolist())


def test_a_selector_that_never_decides_is_a_random_choice():
    rng = np.random.default_rng(9)
    candidates = some_candidates(rng, [4] * 5, tokens=np.ones(20), conclusions=np.arange(20))
    right = np.repeat([[True, False, False, False]], 5, axis=0).ravel()
    found = accuracy.compare(candidates, right, 4)
    assert found.sets == 1 and found.prompts == 5
    shortest, best = found.selectors["shortest"], found.selectors["oracle"]
    assert (shortest.accuracy, shortest.gain, shortest.gain_low, shortest.gain_high) == (0.25, 0, 0, 0)
    assert shortest.undecided == 1 and best.accuracy == 1 and best.gain == 0.75 == best.gain_low


def test_gains_are_paired_over_prompts():
    rng = np.random.default_rng(10)
    right = np.zeros((40, 2), bool)
    right[:20] = True  # half of the prompts are hopeless, so accuracy varies over resamples while the gain does not
    tokens = np.tile([1.0, 2.0], 40)
    found = accuracy.compare(some_candidates(rng, [2] * 40, tokens=tokens), right.ravel(), 2).selectors["shortest"]
    assert found.high - found.low > 0.2 and found.gain_low == found.gain_high == 0


def test_sizes_and_prompts_with_too_few():
    assert accuracy.sizes(np.array([16, 16])) == [2, 4, 8, 16]
    assert accuracy.sizes(np.array([10, 10])) == [2, 4, 8, 10]
    assert accuracy.sizes(np.array([1, 10])) == [2, 4, 8]
    assert accuracy.sizes(np.array([1, 1])) == []
    candidates = some_candidates(np.random.default_rng(11), [1, 4, 2])
    found = accuracy.compare(candidates, np.ones(7, bool), 4)
    assert (found.prompts, found.sets) == (1, 1) and found.selectors["random"].low is None
    assert accuracy.compare(candidates, np.ones(7, bool), 2).sets == accuracy.SETS


# Questions


@pytest.mark.parametrize(
    ("match", "response", "found"),
    [
        ("exact", "<think>x</think>\n a=  b1\n", "a= b1"),
        ("exact", " \n", None),
        ("number", "2 and 1,200.0", 1200.0),
        ("number", "none", None),
        ("choice", "A or (B).", "B"),
        ("choice", "none", None),
        ("regex", " a  b ", "a  b"),
    ],
)
def test_what_a_response_concludes(match, response, found):
    assert concluded(match, response) == found


def test_those_who_conclude_the_same_are_right_together():
    texts = ["<think>7</think> 12", "it is 12.0", "12, no, 13", "B", "(A) or A", "so A", "", "12"]
    for match, answer in (("exact", "12"), ("number", "12"), ("choice", "A"), ("regex", "^1")):
        verdicts: dict = {}
        for text in texts:
            assert verdicts.setdefault(concluded(match, text), matcher(match, answer)(text)) == matcher(match, answer)(
                text
            )


@pytest.mark.parametrize(
    ("text", "truncated", "thinking", "found"),
    [
        ("<think>\n12", True, False, None),
        ("12", True, True, None),
        ("12", True, False, "12"),
        ("12", False, True, "12"),
        ("<think>\n</think>\n\n12", True, True, "12"),
    ],
)
def test_who_has_not_finished_thinking_concludes_nothing(text, truncated, thinking, found):
    assert conclusion_of(Response(0, 0, (1,), (2,), text, truncated), "exact", thinking) == found


@pytest.mark.parametrize(
    ("lines", "match", "drawn", "message"),
    [
        ("", "exact", False, "holds no prompts"),
        ("{", "exact", False, "line 1: not valid JSON"),
        ("[1]", "exact", False, "line 1: found list"),
        (
            '{"prompt": "x"}',
            "exact",
            False,
            'line 1: found no responses; "responses" with a list of texts, or --samples N',
        ),
        ('{"prompt": "x", "responses": []}', "exact", False, "line 1: found responses '[]'"),
        ('{"prompt": "x", "responses": ["a", 3]}', "exact", False, "line 1: found responses"),
        (
            '{"prompt": "x", "responses": ["a"]}',
            "exact",
            True,
            "line 1: has responses, and --samples would draw others",
        ),
        ('{"prompt": "x", "responses": ["a"], "answer": "z"}', "number", False, "line 1: the answer 'z' is no number"),
        (
            '{"prompt": "x", "answer": 4}\n\n{"prompt": "y"}',
            "exact",
            True,
            "line 3: found no answer, while other lines",
        ),
        ('{"prompt": "x"}', "fuzzy", True, "--match: found 'fuzzy'"),
    ],
)
def test_bad_questions(tmp_path, lines, match, drawn, message):
    (tmp_path / "r.jsonl").write_text(lines + "\n")
    with pytest.raises(InputError) as error:
        read_questions(PromptsConfig(file=str(tmp_path / "r.jsonl")), match, drawn)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("samples", "settings", "message"),
    [
        (
            4,
            {"generation": {"temperature": 0}},
            "generation.temperature: found 0, which gives 4 times the same response",
        ),
        (4, {"generation": {"samples": 2}}, "--set generation.samples: --samples N would do"),
        (None, {"generation": {"top_p": 0.9}}, "--set generation: nothing is drawn"),
        (None, {"prompts": {"file": "x"}}, "--set prompts.file: the command's argument says it"),
        (None, {"activation": {}}, "activation: unknown key. Did you mean 'activations'?"),
        (None, {"prompts": 3}, "prompts: found 3"),
    ],
)
def test_settings_that_contradict_one_another(samples, settings, message):
    with pytest.raises(InputError) as error:
        configure("r.jsonl", samples, settings)
    assert message in str(error.value)


def test_settings_that_do_not():
    assert configure("r.jsonl", 1, {"generation": {"temperature": 0}}).generation.temperature == 0
    assert configure("r.jsonl", 16, {}).generation.temperature > 0


def test_a_family_brings_settings_that_the_command_line_changes():
    defaults = {"generation": {"max_new_tokens": 832}, "activations": {"slice_tokens": 5, "top_k": 64}}
    config = configure("r.jsonl", 4, {"activations": {"top_k": 8}}, defaults)
    assert (config.activations.slice_tokens, config.activations.top_k) == (5, 8)
    assert (config.generation.max_new_tokens, config.generation.samples) == (832, 4)


def test_texts_are_tokenized_as_they_stand(toy, tmp_path):
    (tmp_path / "r.jsonl").write_text('{"prompt": "pairs", "responses": ["a= a1 a2", "a= a1 a2<|im_end|>", ""]}\n')
    questions = read_questions(PromptsConfig(file=str(tmp_path / "r.jsonl")), "exact", False)
    tokenizer = load_tokenizer(toy["a"])
    first, ended, empty = encode_texts(questions, [[1, 2]], tokenizer, 100)
    assert tokenizer.decode(first.token_ids) == "a= a1 a2" and first.prompt_ids == (1, 2)
    assert ended.text == first.text == "a= a1 a2"
    assert ended.token_ids == (*first.token_ids, tokenizer.eos_token_id) and empty.token_ids == ()
    with pytest.raises(InputError) as error:
        encode_texts(questions, [[1, 2]], tokenizer, 4)
    assert "line 1: response 0 has 3 tokens; with the prompt of 2 that is beyond the model's context of 4" in str(
        error.value
    )


# The command

SETTINGS = ("--set", "activations.slice_tokens=2", "--set", "activations.top_k=8")


def invoke(*args):
    return CliRunner().invoke(app, ["select", *map(str, args)])


def test_given_responses_with_answers(toy, tmp_path):
    words = "a: a1 3 + a2 5 = 8 a? 8 yes\na= a1 a2 wait b: b1 9 no b2 4 b? 13"
    texts = [f"{words} {words} 1", f"{words} no no\n2", f"{words} {words} 1", "", "  "]
    lines = [{"prompt": p, "responses": texts[: 5 - i], "answer": 1} for i, p in enumerate(["pairs", "signs"])]
    file = tmp_path / "r.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    done = invoke(
        file,
        "--model",
        toy["a"],
        "--match",
        "number",
        "--by",
        "shortest",
        "--summary",
        tmp_path / "s" / "s.json",
        *SETTINGS,
    )
    assert done.exit_code == 0, done.output
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["prompt"] == 0 and first["right"] == [True, False, True, False, False]
    assert first["order"] == [1, 0, 2, 3, 4] and first["picks"]["shortest"] == 1 and first["picks"]["majority"] == 0
    assert set(first["picks"]) == set(first["scores"]) == set(SELECTORS)
    assert all(scores[3:] == [None, None] for scores in first["scores"].values())
    assert first["scores"]["nex"][0] == first["scores"]["nex"][2] and first["scores"]["majority"][:3] == [2, 1, 2]
    assert first["scores"]["shortest"][1] < first["scores"]["shortest"][0] and len(second["order"]) == 4
    assert "2 prompts, 9 candidates: 2 repeat another of their prompt, 3 are empty" in done.stderr
    assert "undefined, and so ranked last: nex 3, majority 3, shortest 3" in done.stderr
    assert "random" in done.stderr and "oracle" in done.stderr
    summary = json.loads((tmp_path / "s" / "s.json").read_text())
    assert [item["candidates"] for item in summary["comparisons"]] == [2, 4]
    assert summary["comparisons"][0]["selectors"]["random"]["accuracy"] == pytest.approx((2 / 5 + 2 / 4) / 2)


def test_drawn_responses(toy, tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "pairs"}\n{"messages": [{"role": "user", "content": "signs"}]}\n')
    args = (file, "--model", toy["a"], "--samples", 3, "--set", "generation.max_new_tokens=20", *SETTINGS)
    done = invoke(*args)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(line["responses"]) for line in lines] == [3, 3] and "right" not in lines[0]
    assert "drawing 3 responses to each of 2 prompts at temperature 0.7" in done.stderr
    assert invoke(*args).stdout == done.stdout
    # Under given weights a score is nobody else's business.
    np.savez(tmp_path / "w.npz", keys=np.arange(32, dtype=np.uint32), weights=np.linspace(-1, 1, 32, dtype=np.float32))
    both = invoke(*args, "--weights", tmp_path / "w.npz")
    alone = invoke(*args, "--weights", tmp_path / "w.npz", "--set", "prompts.limit=1")
    assert both.stdout.splitlines()[0] == alone.stdout.splitlines()[0]


def test_nothing_but_empty_responses(toy, tmp_path):
    (tmp_path / "r.jsonl").write_text('{"prompt": "pairs", "responses": ["", ""], "answer": "x"}\n')
    done = invoke(tmp_path / "r.jsonl", "--model", toy["a"], *SETTINGS)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["order"] == [0, 1]
    assert "undefined, and so ranked last: nex 2" in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("none.jsonl",), "RESPONSES: found no file 'none.jsonl'"),
        (("none.jsonl", "--by", "majorty"), "--by: found 'majorty'. Did you mean 'majority'?"),
        (("none.jsonl", "--calibration", "self"), "--calibration: found 'self'"),
        (("none.jsonl", "--calibration", "pool", "--weights", "w.npz"), "give either --calibration or --weights"),
        (("none.jsonl", "--rho", "1"), "--rho: found 1.0"),
        (("R", "--summary", "s.json"), "--summary: no answers are known"),
        (("R", "--weights", "none.npz"), "--weights: no file none.npz"),
        (("R",), "--model: found no folder 'nowhere'"),
    ],
)
def test_bad_commands(tmp_path, args, message):
    (tmp_path / "r.jsonl").write_text('{"prompt": "x", "responses": ["a"]}\n')
    done = invoke(*(tmp_path / "r.jsonl" if arg == "R" else arg for arg in args), "--model", "nowhere")
    assert isinstance(done.exception, InputError) and message in str(done.exception)
