"""A reading as HTML, on the terminal and as JSON; responses can't inject markup or control sequences."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nex_merge.inert import visible
from nex_merge.inspect.reading_html import STYLE, as_mapping, render_fragment, render_page
from nex_merge.inspect.reading_text import print_reading
from tests.inspect.fakes import CYCLE, reading

NASTY = [
    "<script>alert(1)</script>",
    " [bold]b[/bold]",
    "\x1b[31m:smile:",
    "\u202eabc",
    "\x00\x07",
    "\r\n",
    "&lt;",
    "é😀",
]
CLEAN = ["<script>alert(1)</script>", " [bold]b[/bold]", "␛[31m:smile:", "\ufffdabc", "␀␇", "␍\n", "&lt;", "é😀"]


class Page(HTMLParser):
    """The tags of a page, and the text of the response."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.inside, self.skip = [], [], False, False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside |= tag == "pre"
        self.skip |= tag == "sup"

    def handle_endtag(self, tag):
        self.inside &= tag != "pre"
        self.skip &= tag != "sup"

    def handle_data(self, data):
        if self.inside and not self.skip:
            self.text.append(data)


def test_responses_are_escaped_in_html():
    shown = reading(NASTY, "EEXX.EEX", cycles=[CYCLE], prompt="<b>\x1b[1m")
    page = Page(render_fragment(shown))
    assert "".join(page.text) == "<b>␛[1m" + "\n" + "".join(CLEAN), "the parser drops the line feed after <pre>"
    assert not {"script", "html", "style", "b"} & set(page.tags)
    whole = render_page(shown, "a <title>", ["<i>fact</i>"])
    assert whole.count("<html") == 1 and STYLE in whole and "prefers-color-scheme" in whole
    assert "&lt;i&gt;fact" in whole and "a &lt;title&gt;" in whole and "http" not in whole
    assert len(whole) < 20_000


def test_a_fragment_has_phases_series_and_cycles():
    html = render_fragment(reading(["a", "b", "c", "d"], "EXX.", cycles=[CYCLE], score=0.75))
    assert html.count("<rect") == 6 and html.count("<sup>E</sup>") == 2 and html.count("<sup>X</sup>") == 2
    for words in ("Good-Mass Fraction 0.750", "0 to 0", "1 to 2", "0.400", "0.250", "effective"):
        assert words in html
    assert "33 % explore" in html


def test_html_says_why_there_are_no_phases():
    short = reading(["a", "b"], "..")
    assert "phases need at least 3 rows, and its 2 tokens fill 2." in render_fragment(
        short
    ) and "<rect" not in render_fragment(short)
    empty = reading(["a"] * 4, "....")
    assert "fewer than 3 of the 4 rows have any activation mass" in render_fragment(empty)
    fell = reading(["a"] * 3, "EEE", fallback="zero_spread")
    assert "no spread; rows with z &gt; 0 count as explore" in render_fragment(fell)
    assert "No cycle" in render_fragment(fell)


def printed(capsys, *args, **kwargs):
    print_reading(reading(*args, **kwargs), ["facts \x1b[1m[red]"])
    return capsys.readouterr().out


def test_plain_text_has_no_escape_sequences(capsys):
    out = printed(capsys, NASTY, "EEXX.EEX", cycles=[CYCLE], score=0.75, prompt="two\nlines")
    assert "\x1b" not in out and "\x07" not in out and "\r" not in out and "\u202e" not in out
    assert "facts ␛[1m[red]" in out and "prompt: two⏎lines" in out
    lines = out.splitlines()
    rows = [line for line in lines if line[:2] in ("E ", "X ", "· ")]
    assert "".join(line[0] for line in rows) == "EEXX·EEX"
    assert all(line.rstrip().endswith(text.replace("\n", "⏎")) for line, text in zip(rows, CLEAN, strict=True))
    assert "████" in rows[0] and "+1.00" in rows[0] and "-1.00" in rows[2]
    assert "4 explore (E), 3 exploit (X), 1 without activation mass (·); Good-Mass Fraction 0.7500" in out
    assert any("0 to 0" in line and "0.400" in line and "effective" in line for line in lines)
    assert "A single cycle" in out


def test_a_terminal_shows_coloured_text(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    out = printed(capsys, NASTY, "EEXX.EEX")
    assert "\x1b[30;43m" in out and "\x1b[30;46m" in out
    assert "\x1b[31m" not in out and "[bold]" in out and ":smile:" in out


def test_the_terminal_says_why_there_are_no_phases(capsys):
    assert "No phases: the response is too short: phases need at least 3 rows" in printed(capsys, ["a", "b"], "..")
    out = printed(capsys, ["a"] * 3, "EEE", fallback="mixture_failed")
    assert "Fallback: the HMM cannot be fitted, because no mixture" in out and "No cycle" in out


def test_visible_leaves_text_alone():
    assert visible("a\tb\nö漢😀 ⏎") == "a\tb\nö漢😀 ⏎"
    assert visible("\x7f\x85\u2028\ud800\u200b") == "␡" + 4 * "\ufffd"


def test_data_is_json_and_complete():
    shown = reading(NASTY, "EEXX.EEX", cycles=[CYCLE])
    data = json.loads(json.dumps(as_mapping(shown)))
    assert "".join(row["text"] for row in data["rows"]) == data["text"] == "".join(NASTY)
    assert [row["phase"] for row in data["rows"]][3:5] == ["exploit", None]
    assert data["cycles"][0]["explore_rows"] == [0, 0] and data["cycles"][0]["credit"] == "effective"


@pytest.mark.parametrize("name", ["reading.html.jinja", "page.html.jinja"])
def test_templates_are_in_the_package(name):
    assert (Path(__file__).parents[2] / "nex_merge" / "inspect" / name).is_file()
