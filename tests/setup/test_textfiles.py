"""Text files that people bring: read right, or refused with the file, the line and the reason. Never guessed."""

import gzip
import json
import os
from functools import partial

import pandas
import pytest

from nex_merge.errors import InputError
from nex_merge.setup import textfiles
from nex_merge.setup.config import PromptsConfig
from nex_merge.setup.prompts import load_prompts
from nex_merge.setup.textfiles import parse_number

pytestmark = pytest.mark.quick
packed = partial(gzip.compress, mtime=0)


def texts(path, **settings):
    return [prompt.raw for prompt in load_prompts(PromptsConfig(file=str(path), **settings))]


def refusal(path, **settings):
    with pytest.raises(InputError) as error:
        load_prompts(PromptsConfig(file=str(path), **settings))
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("bom.jsonl", b'\xef\xbb\xbf{"prompt": "a"}\n', ["a"]),
        ("utf16.jsonl", '{"prompt": "ä好"}\r\n'.encode("utf-16"), ["ä好"]),
        ("utf16be.csv", "\ufeffprompt\nä\n".encode("utf-16-be"), ["ä"]),
        ("utf32.txt", "a\nb\n".encode("utf-32"), ["a", "b"]),
        ("packed.jsonl.gz", packed(b'{"prompt": "a"}\n'), ["a"]),
        ("packed.txt", packed(b"a\n"), ["a"]),
        ("PACKED.CSV.GZ", packed(b"prompt\na\n"), ["a"]),
        ("mixed.txt", b"a\r\nb\rc\nd", ["a", "b", "c", "d"]),
        ("mixed.jsonl", b'{"prompt": "a"}\r\n{"prompt": "b"}\r{"prompt": "c"}\n', ["a", "b", "c"]),
        ("mac.csv", b"id,prompt\r1,a\r2,b\r", ["a", "b"]),
        ("joined.txt", b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "b"]),
        ("quoted.csv", b'id,prompt\n1,"a, ""b""\r\nc"\n\n2,say "hi"\n', ['a, "b"\nc', 'say "hi"']),
        ("spaces.csv", b"id , prompt\n1,a\n", ["a"]),
        ("index.csv", b",prompt\n0,a\n", ["a"]),
        ("words.jsonl", b'{"prompt": "None"}\n{"prompt": "NA"}\n{"prompt": "1e3"}\n', ["None", "NA", "1e3"]),
        ("numbers.csv", b"prompt\n007\n1e3\n", ["007", "1e3"]),
        ("tabs.jsonl", b'{"prompt": "a\\tb\\r\\nc"}\n', ["a\tb\r\nc"]),
        ("long.csv", b'prompt\n"' + b"x " * 100_000 + b'"\n', ["x " * 100_000]),
        ("emoji.jsonl", b'{"prompt": "\\ud83d\\ude00"}\n', ["😀"]),
        ("either.jsonl", b'{"prompt": null, "messages": [{"role": "user", "content": "a"}]}\n', [None]),
    ],
)
def test_what_is_read(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert texts(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "p.csv",
            b"id,prompt\n1,List two primes, please\n",
            "line 2: expected 2 fields, as in the header, got 3. Put a f",
        ),
        ("p.csv", b"id,prompt,x\n1,a,\n2,b\n", "p.csv line 3: expected 3 fields, as in the header, got 2"),
        ("p.csv", b"prompt\none, two\n", "line 2: expected 1 field, as in the header, got 2"),
        ("p.csv", b'prompt\na\n"b\nc\n', "p.csv line 3: a quote is opened and never closed"),
        ("p.csv", b'id,prompt\n1,"a"b\n', "p.csv line 2: ',' expected after '\"'"),
        ("p.csv", b'id,prompt\n1, "a"\n', "line 2: prompt: a blank before a quote makes it part of the text"),
        ("p.csv", b"id;prompt\n1;a\n", "expected fields separated by commas, got semicolons"),
        ("p.csv", b"id\tprompt\n1\ta\n", "expected fields separated by commas, got tabs"),
        ("p.csv", b"prompt,x,prompt\na,b,c\n", "the column 'prompt' occurs twice in the header"),
        ("p.csv", b"promt\na\n", "prompts.column: expected a column of"),
        ("p.csv", b"id,prompt\n1,\n", "p.csv line 2: prompt: expected non-empty text, got ''"),
        ("p.csv", b"", "p.csv: is empty; expected a header with the column 'prompt'"),
        ("p.csv", b"prompt\n", "expected at least one prompt, got none"),
        ("p.csv", b'prompt\n"a\nb"\nc,d\n', "p.csv line 4: expected 1 field"),
        *(
            ("p.csv", f"id,prompt\n1,{word}\n".encode(), f"line 2: prompt: expected text, got '{word}', which programs")
            for word in ("None", "null", "NA", "nan", "N/A", "<NA>", "#N/A", "NaN")
        ),
        ("p.jsonl", b'{"prompt": "a \\ud83d"}\n', "line 1: prompt: half of a surrogate pair (U+D83D)"),
        ("p.jsonl", b'{"prompt": "a\\u0000"}\n', "line 1: prompt: the control character U+0000 (NUL). Remove it"),
        ("p.jsonl", b'{"prompt": "\\u001b[31ma"}\n', "the control character U+001B (ESC)"),
        ("p.txt", b"ok\na\x08b\n", "p.txt line 2: the control character U+0008 (backspace)"),
        ("p.txt", "it\x92s".encode(), "U+0092; Windows-1252 read as Latin-1 has these"),
        ("p.txt", "ok\nprüfe".encode("latin-1"), "line 2: expected UTF-8 text, got the byte 0xfc"),
        ("p.txt", "abc\n".encode("utf-16-le"), "got what looks like UTF-16 without a byte order mark"),
        ("p.jsonl", b'{"prompt": "a", "prompt": "b"}\n', "line 1: the key 'prompt' occurs twice"),
        ("p.jsonl", b'{"prompt": "a", "x": NaN}\n', "line 1: NaN is not a JSON value"),
        ("p.jsonl", b'{"prompt": 5}\n', "line 1: prompt: expected text, got 5"),
        ("p.jsonl", b'{"prompt": null}\n', "line 1: prompt: expected text, got null"),
        ("p.jsonl", b'{"prompt": ["a"]}\n', "line 1: prompt: expected text, got [a]"),
        (
            "p.jsonl",
            b'{"promt": "a"}\n',
            "got the keys promt. To use another key, set prompts.column. Is 'promt' a misspelt 'prompt'?",
        ),
        ("p.jsonl", b'[{"prompt": "a"},\n{"prompt": "b"}]\n', "expected one JSON object per line, got a JSON array"),
        ("p.jsonl", b'{\n "prompt": "a"\n}\n', "got one JSON object over several lines. Convert it: jq -c ."),
        ("p.jsonl", b'{"prompt": "a"}\n"b"\n', 'line 2: expected a JSON object, got "b"'),
        ("p.jsonl", b'{"prompt": "a"} {"prompt": "b"}\n', "line 1: not valid JSON (Extra data at character 17)"),
        ("p.jsonl", b"[" * 100_000, "not valid JSON"),
        ("p.json", b'{"prompt": "a"}', 'expected a JSON array of objects, got \'{"prompt": "a"}\''),
        ("p.json", b'{"prompt": "a"}\n{"prompt": "b"}', "in line 2). Is it JSONL, one object per line? Name it .jsonl"),
        ("p.json", b'[{"prompt": "a"}, 5]', "p.json row 2: expected a JSON object, got 5"),
        ("p.jsonl.gz", packed(b'{"prompt": "a"}\n')[:-6], "a damaged or incomplete gzip file"),
        ("p.jsonl", b"PK\x03\x04...", "got a zip archive; unpack it first"),
        ("p.txt", b"", "expected at least one prompt, got none"),
    ],
)
def test_what_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    said = refusal(tmp_path / name)
    assert message in said and str(tmp_path / name) in said


def test_all_bad_rows_are_told_at_once_and_only_what_is_asked_for_is_read(tmp_path):
    lines = ['{"prompt": "a"}', '{"prompt": 5}', "{", *['{"x": 1}'] * 15, '{"prompt": "b"}']
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    said = refusal(tmp_path / "p.jsonl").split("\n")
    assert "line 2: prompt: expected text, got 5" in said[0] and "line 3: not valid JSON" in said[1]
    assert said[2].endswith("(also in 5, 6, 7, 8, 9, 10, 11)") and "line 4: expected text in" in said[2]
    assert said[3:] == ["... and 7 more rows with mistakes"]
    assert texts(tmp_path / "p.jsonl", limit=1) == ["a"], "nothing beyond is looked at"
    (tmp_path / "p.csv").write_text('id,prompt\n1,a,b\n2,\n3,c\n4,"d\n')
    said = refusal(tmp_path / "p.csv").split("\n")
    assert [line.split(" line ")[1][:12] for line in said] == ["2: expected ", "3: prompt: e", "5: a quote i"]
    pandas.DataFrame({"prompt": ["a", None, "b", ""]}).to_parquet(tmp_path / "p.parquet")
    said = refusal(tmp_path / "p.parquet")
    assert "row 2: prompt: expected text, got null" in said and "row 4: prompt: expected non-empty text" in said


def test_reading_is_bounded(tmp_path, monkeypatch):
    """A line of any length is refused without being held; of a packed file, no more is unpacked than is asked for."""
    monkeypatch.setattr(textfiles, "LONGEST", 1000)
    long = b"a" * 5000
    contents = {"p.jsonl": b'{"prompt": "' + long + b'"}\n', "p.txt": long, "p.csv": b"prompt\n" + long}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert "longer than 1.0 kB, which no prompt or response is" in refusal(tmp_path / name)
    (tmp_path / "q.csv").write_bytes(b'prompt\n"a\n' + b"b\n" * 5000)
    assert "line 2: a quote is opened and never closed" in refusal(tmp_path / "q.csv")
    (tmp_path / "p.jsonl").write_bytes(b"[" + b'{"prompt": "a"},' * 500 + b"]")
    assert "It looks like a JSON array on one line" in refusal(tmp_path / "p.jsonl")
    (tmp_path / "p.txt.gz").write_bytes(packed(b"a\n" * 100_000)[:-8])
    assert texts(tmp_path / "p.txt.gz", limit=4) == ["a"] * 4
    assert "incomplete gzip" in refusal(tmp_path / "p.txt.gz")


def test_parquet_is_read_by_rows_with_what_stands_beside_prompts(tmp_path, monkeypatch):
    rows = {"question": ["x"] * 2000, "choices": [["1", "2"]] * 2000, "system": ["be brief"] * 2000}
    pandas.DataFrame(rows).to_parquet(tmp_path / "p.parquet")
    read = []
    real = textfiles.collect
    monkeypatch.setattr(textfiles, "collect", lambda rows, each: real((read.append(1) or row for row in rows), each))
    (first, *_) = load_prompts(PromptsConfig(file=str(tmp_path / "p.parquet"), column="question", limit=3))
    assert len(read) == 3 and first.choices == ("1", "2") and first.messages[0]["role"] == "system"
    (tmp_path / "p.csv").write_text('prompt,choices,tools\nx,"[""1"", ""2""]",\ny,"[""1"", ""2""]",[]\n')
    assert "line 3: tools: not taken from a CSV file; give the prompts as JSONL" in refusal(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (
            [("user", "2+2?"), ("assistant", "4"), ("assistant", "5")],
            "messages: expected the last message to be the user's, got the assistant's",
        ),
        ([("system", "be brief")], "expected the last message to be the user's, got the system's"),
        ([("human", "a")], "messages.0.role: expected system, user, assistant or tool, got 'human'"),
        (
            [("user", "a"), ("function", "b"), ("user", "c")],
            "messages.1.role: expected system, user, assistant or tool, got 'function'",
        ),
        ([("user", [{"type": "text", "text": "a"}])], "messages.0.content: expected text, got [{type: text, text: a}]"),
        ([("user", None)], "messages.0.content: expected text, got null"),
        ([("user", " ")], "expected text in the last message, got ' '"),
        ([("system", "a\ud83d"), ("user", "b")], "messages.0.content: half of a surrogate pair"),
        ([("user", "a\0")], "messages.0.content: the control character U+0000"),
        ([], "expected a list of"),
    ],
)
def test_messages_that_ask_nothing(tmp_path, messages, message):
    listed = [{"role": role, "content": content} for role, content in messages]
    (tmp_path / "p.jsonl").write_text(json.dumps({"messages": listed}) + "\n")
    assert message in refusal(tmp_path / "p.jsonl") and "line 1" in refusal(tmp_path / "p.jsonl")


def test_parquet_is_read_by_column_and_row(tmp_path):
    file = tmp_path / "p.parquet"
    pandas.DataFrame({"prompt": ["a", "None"], "n": [1, 2]}).to_parquet(file)
    assert texts(file) == ["a", "None"]
    pandas.DataFrame({"prompt": ["a", "b"]}).set_index("prompt").to_parquet(file)
    assert texts(file) == ["a", "b"]
    pandas.DataFrame({"prompt": pandas.Categorical(["b", "a"])}).to_parquet(file)
    assert texts(file) == ["b", "a"]
    for values, message in (
        (["a", None], "row 2: prompt: expected text, got null"),
        ([b"a", b"b"], "row 1: prompt: expected text, got bytes (b'a')"),
        ([1, 2], "row 1: prompt: expected text, got 1"),
        ([["a"], ["b"]], "row 1: prompt: expected text, got [a]"),
    ):
        pandas.DataFrame({"prompt": values}).to_parquet(file)
        assert message in refusal(file)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to("gone")
    (tmp_path / "folder.jsonl").mkdir()
    assert "got the folder" in refusal(tmp_path / "folder.jsonl")
    assert "a pipe or device, which cannot be read twice" in refusal(tmp_path / "pipe.jsonl")
    assert "a pipe or device" in refusal("/dev/null")
    assert "a link whose target is gone" in refusal(tmp_path / "link.jsonl")
    assert "file name too long" in refusal("/" + "x" * 300)


@pytest.mark.parametrize(("text", "value"), [("0.5", 0.5), (" 1e-1 ", 0.1), (".5", 0.5), ("1", 1.0)])
def test_numbers(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize("text", ["0_1", "nan", "inf", "0,5", "٠.٥", "50%", "", "True", "0x1"])
def test_what_only_python_takes_for_a_number(text):
    assert parse_number(text) is None
