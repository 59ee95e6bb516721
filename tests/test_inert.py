"""Nothing that comes from a model, a file or a database acts on a terminal, in a spreadsheet or in Markdown."""

import csv
import io
import json
import logging
import subprocess
import sys
from dataclasses import replace

import pytest

from nex_merge import cli, inert, terminal
from nex_merge.inert import csv_cell, json_text, markdown, one_line, shell_word, visible
from nex_merge.measures.estimates import Objective
from nex_merge.runs.leaderboard import as_csv, read_rows
from nex_merge.runs.run import RunFolder
from nex_merge.runs.tables import print_table, render
from nex_merge.setup.paths import command
from nex_merge.terminal import console

ACTING = "\x1b[2J\x9b31m\x07\x08\u202e\u2066\u200f\r\x7f\x00"
NASTY = f"=HYPERLINK(0){ACTING}| pipes `code` <script>alert(1)</script> [red]x[/red] [link=http://a.b]y[/link] :bomb:"


def acts(text):
    return sorted({c for c in text if visible(c) != c})


def test_a_terminal_shows_and_does_nothing(capsys):
    assert not acts(visible(NASTY)) and visible("ö漢😀\tx\n") == "ö漢😀\tx\n"
    assert one_line("a\n\nVerdict: sound.\r") == "a Verdict: sound.␍"
    terminal.echo(NASTY)
    terminal.echo(NASTY, err=True)
    shown = capsys.readouterr()
    assert "<script>" in shown.out and not acts(shown.out) and not acts(shown.err)


def test_a_console_of_rich_takes_nothing_for_markup(capsys):
    from rich.table import Table

    table = Table(NASTY)
    table.add_row(NASTY)
    shown = console(1000)
    for what in (NASTY, table):
        shown.print(what)
    with shown.status(NASTY):
        pass
    out = capsys.readouterr().out
    assert out.count("[red]x[/red] [link=http://a.b]") == 3 and not acts(out)


def test_cells_of_csv_begin_no_formula():
    for text in (
        "=1+1",
        "+1+1",
        "-cmd",
        "@SUM(A1)",
        "  =1",
        "\u00a0=1",
        "\t=1",
        "\r=1",
        "\n=1",
        "\x00=1",
        "＝1",
        "\t1",
    ):
        assert str(csv_cell(text)).startswith("'") and not acts(str(csv_cell(text)))
    for value in ("-0.5", "+3", "1e-3", "-", "a=b", "", -0.5, None, True):
        assert csv_cell(value) == (value if value != "-" else "'-")
    assert csv_cell("a\x1b[2J\x9b") == "a␛[2J\ufffd"


def test_markdown_is_one_line_without_markup():
    assert markdown("a|b\n`c` <script> *d* [e](f) # g & h") == (r"a\|b \`c\` \<script\> \*d\* \[e\](f) \# g \& h")
    assert markdown("task_arithmetic _x_") == r"task_arithmetic \_x\_" and not acts(markdown(NASTY))


def test_json_and_logs_are_ascii_and_inert():
    assert json.loads(json_text({"a": NASTY})) == {"a": NASTY} and not acts(json_text(NASTY))
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "said %s", (NASTY,), None)
    assert not acts(inert.Formatter().format(record))


@pytest.mark.parametrize("name", ["a b", "it's", "a\x1b[2Jb", "ü\u202e\\'", "a\nb", "$x"])
def test_words_of_commands_are_inert_and_copied_right(name):
    shown = command("watch", name)
    assert not acts(shown) and "\n" not in shown
    copied = subprocess.run(
        ["bash", "-c", f"printf %s {shell_word(name)}"], capture_output=True, timeout=10, check=True
    )
    assert copied.stdout.decode() == name


@pytest.fixture
def nasty_rows(toy_run):
    rows = read_rows(RunFolder(toy_run))
    parent, merge = ([row.kind for row in rows].index(kind) for kind in ("parent", "merge"))
    rows[parent] = replace(rows[parent], trial=NASTY)
    parameters = {**rows[merge].parameters, NASTY: NASTY}
    rows[merge] = replace(rows[merge], method=NASTY, state="failed", reason=NASTY, parameters=parameters)
    return rows


def test_a_leaderboard_of_hostile_names_in_every_format(nasty_rows, capsys):
    objective = Objective("nex", 1)
    print_table(nasty_rows, NASTY, objective, None, nasty_rows)
    shown = capsys.readouterr()
    assert "<script>" in shown.out and not acts(shown.out) and not acts(shown.err)
    for form in ("csv", "json", "md"):
        assert not acts(render(nasty_rows, form, objective)), form
    cells = [cell for row in csv.reader(io.StringIO(as_csv(nasty_rows))) for cell in row]
    assert any("<script>" in cell for cell in cells)
    assert not [cell for cell in cells if cell.startswith(("=", "@", "\t", "\r"))]
    table = render(nasty_rows, "md", objective).splitlines()
    assert len({line.replace("\\|", "").count("|") for line in table if line.startswith("|")}) == 1
    assert "\\<script\\>" in "".join(table) and "`" not in "".join(table).replace("\\`", "")


COMMANDS = [
    *(["leaderboard", "{run}", "--format", form] for form in ("table", "csv", "json", "md")),
    ["leaderboard", "{run}", "--sort", NASTY], ["watch", "{run}", "--once"], ["report", "{run}"],
    *(["phases", "{run}", "--trial", *trial] for trial in ([NASTY], ["1"], ["1", "--json"])),
    ["neurons", "{run}", "--trial", "1"], ["neurons", "{run}", "--trial", "1", "--json"], ["correlate", "{run}"],
    ["correlate", "{run}", "--by", NASTY], ["audit", "{run}", "--labels", "{files}/labels.csv"],
    ["benchmark", "{run}", "--data", "{files}/nasty.jsonl"],
    ["export", "{run}", "--trial", NASTY, "--out", "{files}/x"],
    ["rescore", "{run}", "--calibration", NASTY], ["consensus", "{files}/a.jsonl", "{files}/b.jsonl"],
    ["consensus", "{files}/a.jsonl", "{files}/b.jsonl", "--format", "json"],
    ["consensus", "{files}/a.jsonl", "{files}/nasty.jsonl"], ["select", "{files}/nasty.jsonl", "--model", NASTY],
    ["search", "{files}/nasty.yaml"], ["validate", NASTY.replace("\x00", "")], [NASTY.replace("\x00", "")],
]  # fmt: skip


def test_every_command_on_a_tampered_run_is_inert(toy_run_copy, tmp_path, monkeypatch, capsys):
    for file in sorted((toy_run_copy / "trials").glob("*/result.json")):
        data = json.loads(file.read_text())
        if data.get("kind") == "merge":
            data |= {"state": "failed", "reason": NASTY}
        file.write_text(json.dumps(data))
    for file in sorted((toy_run_copy / "trials").glob("*/responses.jsonl")):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("\n".join(json.dumps({**line, "text": NASTY}) for line in lines) + "\n")
    files = tmp_path / f"files {ACTING[:5]}"
    files.mkdir()
    for name in "ab":
        lines = [{"prompt": f"{NASTY} {n}", "response": f"{NASTY} {n}", "finish_reason": NASTY} for n in range(3)]
        (files / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (files / "nasty.jsonl").write_text(json.dumps({NASTY: NASTY, "prompt": 3}))
    (files / "nasty.yaml").write_text(json.dumps({NASTY: NASTY, "family": NASTY}))
    (files / "labels.csv").write_text(f"prompt,{NASTY}\n0,{NASTY}\n".replace("\r", "").replace("\x00", ""))
    for words in COMMANDS:
        given = [
            word.replace("\x00", "").format(run=toy_run_copy, files=files) if "{" in word else word for word in words
        ]
        monkeypatch.setattr(sys, "argv", ["nex-merge", *(word.replace("\x00", "") for word in given)])
        with pytest.raises(SystemExit):
            cli.main()
        shown = capsys.readouterr()
        for text in (shown.out, shown.err):
            assert not acts(text), (words, text)
        assert shown.out or shown.err, words


def test_a_fault_of_ours_shows_its_traceback_inert(capsys):
    try:
        raise ValueError(NASTY)
    except ValueError as error:
        cli._show_traceback(ValueError, error, error.__traceback__)
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") and not acts(shown)
