"""What responses conclude, under every way to read an answer, against cases judged by a reader."""

import json
import re
import subprocess
import sys
import threading
import time
from itertools import combinations
from pathlib import Path

import pytest

from nex_merge.answers.conclusions import check_match, conclude, is_correct, is_unfinished, read_gold
from nex_merge.errors import InputError

pytestmark = pytest.mark.quick

NOTHING = "∅"  # as a gold: the response concludes nothing


def cases():
    for table in sorted(Path(__file__).parent.glob("*.tsv")):
        for line in filter(None, table.read_text(encoding="utf-8").split("\n")[1:]):
            match, text, gold, should_match = line.split("\t")
            yield match, text.replace("⏎", "\n"), gold, should_match == "1"


CASES = list(cases())


@pytest.mark.parametrize(("match", "text", "gold", "should_match"), CASES)
def test_a_response_is_judged_as_a_reader_judges_it(match, text, gold, should_match):
    judged = conclude(text, match) is None if gold == NOTHING else is_correct(text, gold, match)
    assert judged is should_match, conclude(text, match)


@pytest.mark.parametrize(
    ("match", "text", "key"),
    [
        ("text", "<think>no</think>\n\na= b1   b2\n", "a= b1 b2"),
        ("text", "a= + -\nb= - +", "a= + - b= - +"),
        ("text", "  ", None),
        ("text", "!", "!"),
        ("number", "<think>3</think> 5 and then 1,200.0", "1200"),
        ("number", "x = -2.5", "-2.5"),
        ("number", r"\frac{1}{3}", "0.333333333333"),
        ("number", "1e-20", "1e-20"),
        ("number", "2^100", "1267650600228229401496703205376"),
        ("number", "no idea", None),
        ("choice", "nothing here", None),
        ("regex:[0-9]+", "1 2 3", "3"),
        ("regex:(a*)", "bbb", None),
    ],
)
def test_keys(match, text, key):
    assert conclude(text, match) == key


def test_the_examples_of_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "answers.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S.*?) \| `(.*)` \| `(.*)` \| (right|wrong) \|$", page, re.MULTILINE)
    assert len(rows) > 10
    for match, response, gold, verdict in rows:
        assert is_correct(response, gold, match) is (verdict == "right"), response


def test_equal_keys_are_equal_conclusions():
    """Votes are an equivalence: keys are texts. Spellings of one value share a key."""
    spellings = ["0.75", ".75", "3/4", r"\frac{3}{4}", "6/8", "¾", "75 hundredths", "three quarters", "7.5e-1", "0.750"]
    assert {conclude(text, "number") for text in spellings} == {"0.75"}
    near = ["0.3", "0.30000000000000004", "0.29999999999999999", "3/10"]
    assert {conclude(text, "number") for text in near} == {"0.3"}
    apart = ["0.3", "0.30000000001", "0.3000000001", "1000000000000.5", "1000000000000", "1000000000001"]
    assert all(conclude(a, "number") != conclude(b, "number") for a, b in combinations(apart, 2))
    json.dumps([conclude(text, match) for match, text, _, _ in CASES])


def test_a_key_concludes_itself():
    for match, text, _, _ in CASES:
        key = conclude(text, match)
        if key is not None and not match.startswith("regex:") and match != "text":
            assert conclude(key, match) == key, text


def test_letters_beyond_the_options_are_none():
    assert conclude("The answer is E", "choice", options=4) is None
    assert conclude("The answer is E", "choice", options=5) == "E"


@pytest.mark.parametrize("match", ["exact", "fuzzy", "regex", ""])
def test_what_is_no_way_to_read_an_answer(match):
    for use in (check_match, lambda m: conclude("x", m), lambda m: is_correct("x", "x", m)):
        with pytest.raises(InputError, match="expected number, choice, text or regex:PATTERN, got"):
            use(match)


def test_a_pattern_that_is_none():
    with pytest.raises(InputError, match=r"--match: 'regex:\(' is not a valid regular expression"):
        check_match("regex:(")


def test_a_pattern_that_runs_for_ever_is_an_error():
    with pytest.raises(InputError, match="took more than 2 s on a response of 61 characters"):
        conclude("a" * 60 + "b", "regex:^(a|a)*$")


@pytest.mark.parametrize(
    ("answer", "match", "message"),
    [
        ("four or five", "number", "expected one number"),
        ("", "number", "expected one number"),
        ("nan", "number", "expected one number"),
        ("inf", "number", "expected one number"),
        ("3-5", "number", "expected one number"),
        ("3:30", "number", "expected one number"),
        ("2024-01-02", "number", "expected one number"),
        ("1e999999", "number", "expected one number"),
        ("none of them", "number", "expected one number"),
        ("B C", "choice", 'expected the letter of one option, "A" to "Z"'),
        ("A, C", "choice", "expected the letter of one option"),
        ("Paris", "choice", "expected the letter of one option"),
        ("1", "choice", 'it may count from 0 or from 1; write the letter of the option, such as "B"'),
        (" ", "text", "it is empty"),
        (" ", "regex:x", "it is empty"),
        ("abc", r"regex:x = (\d+)", "the pattern matches no such text"),
        ("x = 4", r"regex:x = (\d+)", "the pattern matches no such text"),
    ],
)
def test_a_gold_answer_that_can_never_match(answer, match, message):
    with pytest.raises(ValueError, match=message):
        read_gold(answer, match)
    with pytest.raises(InputError, match="gold: "):
        is_correct("x", answer, match)


@pytest.mark.parametrize("answer", ["B", "b", "(B)", "B.", "(b)", "B. Paris", "Paris", "the answer is B", r"\boxed{B}"])
def test_gold_choices_as_data_sets_hold_them(answer):
    assert read_gold(answer, "choice", ["Rome", "Paris", "Bonn"]).key == "B"


def test_a_gold_choice_beyond_the_options():
    with pytest.raises(ValueError, match='expected the letter of one option, "A" to "B", or its text'):
        read_gold("C", "choice", ["Rome", "Paris"])


@pytest.mark.parametrize(
    ("answer", "key"),
    [("1e5", "100000"), ("3/4", "0.75"), (r"\frac{3}{4}", "0.75"), ("$9{,}500", "9500"), ("9500 dollars", "9500"),
     ("1_000", "1000"), ("four", "4"), ("50%", "50"), ("2 + 2 = 4\n#### 4", "4")],
)  # fmt: skip
def test_gold_numbers_as_data_sets_hold_them(answer, key):
    assert read_gold(answer, "number").key == key


NASTY = [
    "9^9^9^9", "9^{9^{9^{9}}}", "factorial(10^9)", "(10^9)!", "1000000000!", "((((9!)!)!)!)", "2^1000000000",
    "10^-999999",
    "1e999999999", "1" * 100_000, "{" * 10_000, "(" * 10_000, "(" * 10_000 + "1" + ")" * 10_000, r"\frac" * 5_000,
    r"\frac{1}{" * 2_000 + "2" + "}" * 2_000, r"\sqrt{" * 2_000 + "2" + "}" * 2_000, r"\boxed{" * 5_000,
    r"\boxed{" * 2_000 + "1" + "}" * 2_000, "1," * 20_000, "1 " * 20_000, "-" * 20_000 + "1", "1+" * 20_000 + "1",
    "the answer is " * 5_000, "answer" * 10_000, "not " * 10_000 + "1", "A and " * 10_000 + "B", "(A) " * 10_000,
    "<think>" * 10_000, "<think></think>" * 5_000, "1/0", "0^-1", "(-1)^0.5", r"\sqrt{-1}", "$" * 10_000, "*" * 20_000,
    "one hundred " * 5_000, "½" * 10_000,
    "²" * 10_000, "x^" * 50 + "2", "(x+1)^{1000000}", "(x+y+z+w)^{20}", "\\" * 10_001,
    r"\int_0^\infty e^{-x^2} dx", r"\sum_{k=1}^{10^9} k", r"\prod_{k=1}^{\infty} k", "a " * 20_000, " " * 50_000 + "1",
    "1" + " " * 50_000 + "x", "“" * 10_000, "x = " * 10_000, "1.2." * 10_000, "_1" * 10_000, "é" * 20_000,
    "wait, " * 5_000, "Q: \n" * 25_000, "<think></think>" * 7_000, "<|im_start|>" * 8_000, "Question: 5\n" * 8_000,
    "1/3 ≈ " * 16_000, "7 out of 12 " * 8_000, "there are no " * 8_000, "答案是" * 33_000, "三百" * 50_000,
    "3万" * 30_000,
    r"\binom{1}" * 10_000, r"{6 \choose" * 10_000, "La respuesta 1,5 " * 6_000, "A y " * 25_000, "Ответ — " * 12_000,
    "Here is my thought process:" * 3_700,
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY, ids=lambda text: f"{text[:24]}..{len(text)}")
def test_nothing_hangs(text):
    start = time.process_time()
    for match in ("number", "choice", "text"):
        conclude(text, match)
        conclude(f"The answer is ${text}$.", match)
    for gold in ("2", "x+1"):
        is_correct(rf"\boxed{{{text}}}", gold, "number")
        is_correct(text, gold, "number")
    assert time.process_time() - start < 3, "of which sympy's import is one"


def test_it_works_in_another_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(is_correct(r"\boxed{(x+1)^2}", "x^2+2x+1", "number")))
    thread.start()
    thread.join()
    assert found == [True]


def test_sympy_is_imported_for_mathematics_only():
    code = (
        "import sys, nex_merge\n"
        "assert nex_merge.is_correct('The answer is 3/4.', '0.75', 'number')\n"
        "assert not nex_merge.is_correct('The answer is 5.', '0.75', 'number')\n"
        "assert nex_merge.is_correct('B', 'b', 'choice')\n"
        "print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "noun",
    ["Answer", "Ans", "Respuesta", "Resultado final", "Réponse", "Reponse", "Antwort", "Endergebnis", "Risposta",
     "Risultato finale", "Resposta", "Gabarito", "Ответ", "Đáp án", "Đáp số", "Câu trả lời", "Antwoord", "Odpowiedź",
     "Cevap", "Yanıt", "Jawaban", "الإجابة", "الجواب", "उत्तर", "答案", "正确选项", "最终结果", "答え", "正解", "回答",
     "정답", "답"],
)  # fmt: skip
def test_what_follows_is_no_part_of_an_announced_answer(noun):
    assert conclude(f"2 3\n{noun}: 18. 4 5 6", "number") == "18"
    assert conclude(f"A B\n{noun}: C. D", "choice") == "C"


def test_a_response_of_two_turns_is_over_when_the_first_is():
    """What goes on thinking about a question of its own has answered the one that was asked."""
    assert not is_unfinished("<think>a</think>7\n\nUser: 3+9?\nAssistant: <think>3 + 9", False, False)
    assert is_unfinished("<seed:think>7", False, False) and is_unfinished("[THINK]User: 7", False, False)


def test_unfinished_responses():
    assert is_unfinished("<think> 3", False, False) and is_unfinished("3", True, True)
    assert not is_unfinished("3", True, False) and not is_unfinished("<think> 3 </think> 4", True, True)
