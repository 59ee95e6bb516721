"""Sheets for several judges: what they show, and what comes back of them, as spreadsheets write it."""

import csv

import pytest

from nex_merge.compare.pairs import Opened
from nex_merge.compare.sheets import check_not_judged, read_sheets, write_sheet
from nex_merge.errors import InputError
from nex_merge.runs.preferred import tally
from tests.compare.compared import chat, opened
from tests.labels.answered import answer_run


@pytest.fixture
def found(chats) -> Opened:
    return opened(chats, "0", "base")


@pytest.fixture
def sheet(found, tmp_path):
    write_sheet(found, tmp_path / "sheet.csv")
    return tmp_path / "sheet.csv"


def rows_of(sheet):
    with open(sheet, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def fill(rows, path, *words, separator=",", encoding="utf-8", **more):
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, [*rows[0], *more], delimiter=separator)
        writer.writeheader()
        for row, word in zip(rows, [*words, *[""] * len(rows)], strict=False):
            writer.writerow({**row, "better": word, **more})
    return path


def test_a_sheet_has_both_answers_in_order_and_names_nobody(found, sheet):
    rows = rows_of(sheet)
    assert [int(row["index"]) for row in rows] == list(found.comparison.order)
    assert [{row["left"], row["right"]} for row in rows] == [
        {one.text for one in found.answers[p]} for p in found.comparison.order
    ]
    text = sheet.read_text(encoding="utf-8-sig")
    assert "0000" not in text and "base" not in text and sheet.read_bytes().startswith(b"\xef\xbb\xbf")


def test_a_response_is_no_formula_in_a_spreadsheet(chats, tmp_path):
    answer_run(chats, lambda v, p: f"=HYPERLINK({chat(v, p)})")
    write_sheet(opened(chats, "0", "base"), tmp_path / "sheet.csv")
    assert all(row["left"].startswith("'=") for row in rows_of(tmp_path / "sheet.csv"))


@pytest.mark.parametrize(
    ("separator", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16"), (";", "utf-8")]
)
def test_what_spreadsheets_make_of_it_is_read(found, sheet, tmp_path, separator, encoding):
    rows = rows_of(sheet)
    path = fill(
        rows, tmp_path / "ann.csv", "Left", "RIGHT", "both good", "4", "", separator=separator, encoding=encoding
    )
    read = read_sheets(found, [path], None)
    assert [(one.prompt, one.judge) for one in read] == [(p, "ann") for p in found.comparison.order[:4]]
    assert [one.better for one in read[2:]] == ["both", "neither"]
    first, second = (found.answers[int(row["index"])][0].text for row in rows[:2])
    assert (read[0].better == "first") == (rows[0]["left"] == first)
    assert (read[1].better == "first") == (rows[1]["right"] == second)


def test_several_judges_by_file_by_column_and_by_name(found, sheet, tmp_path):
    rows = rows_of(sheet)
    one, two = (fill(rows, tmp_path / f"{name}.csv", *["left"] * 7) for name in ("ann", "bob"))
    kept = found.keep(*read_sheets(found, [one, two], None))
    counted = tally(found.run.path, kept.comparison)
    assert list(counted.judges) == ["ann", "bob"] and len(counted.outcomes) == 7 and counted.agreement == (7, 7)
    named = fill(rows, tmp_path / "c.csv", "right", judge="cleo")
    assert {one.judge for one in read_sheets(found, [named], "dan")} == {"cleo"}
    assert {one.judge for one in read_sheets(found, [two], "dan")} == {"dan"}


def test_a_sheet_that_is_filled_in_is_not_written_over(found, sheet, tmp_path):
    check_not_judged(sheet)
    check_not_judged(tmp_path / "new.csv")
    judged = fill(rows_of(sheet), tmp_path / "ann.csv", "left", separator=";")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for kept in (judged, tmp_path / "other.csv"):
        with pytest.raises(InputError, match=r"^--csv: expected a new file, or a sheet in which nothing is judged yet"):
            check_not_judged(kept)


def test_mistakes_name_their_rows(found, sheet, tmp_path):
    rows = rows_of(sheet)

    def refused(words, *paths):
        with pytest.raises(InputError, match=words):
            read_sheets(found, paths, "ann")

    refused(r"line \d+: better: expected left, right, both or neither, or nothing, got 'better one'",
            fill(rows, tmp_path / "a.csv", "left", "better one"))  # fmt: skip
    other = [{**row, "comparison": "c0"} for row in rows]
    refused(
        r"line 2: is of the comparison 'c0', not c[0-9a-f]{11}: of another run", fill(other, tmp_path / "a.csv", "left")
    )
    unknown = [{**row, "index": "11"} for row in rows[:1]]
    refused("line 2: index: expected one of the 11 prompts of the comparison, got '11'",
            fill(unknown, tmp_path / "a.csv", "left"))  # fmt: skip
    nothing = "is judged there: expected left, right, both or neither in the column better of at least one row"
    refused(nothing, fill(rows, tmp_path / "a.csv"))
    (tmp_path / "c.json").write_text("{}\n")
    refused(nothing, tmp_path / "c.json")
    left, right = fill(rows, tmp_path / "a.csv", "left"), fill(rows, tmp_path / "b.csv", "right")
    refused(r"b\.csv line 2: 'ann' says right of prompt \d+ here and left in .*a\.csv line 2", left, right)
    (tmp_path / "c.csv").write_text("better\nleft\n")
    refused("line 2: expected the column 'comparison'", tmp_path / "c.csv")
    (tmp_path / "c.csv").write_text("index,comparison\n1,2\n")
    refused("line 2: expected the column 'better'", tmp_path / "c.csv")
    refused("--read: no such file", tmp_path / "d.csv")
