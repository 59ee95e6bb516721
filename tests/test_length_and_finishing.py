"""The tables of docs/length-and-finishing.md are what its script computes from the published figures."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "length-and-finishing.md").read_text(encoding="utf-8")
STUDY = runpy.run_path(str(ROOT / "results" / "studies" / "length_and_finishing.py"))


def test_the_page_has_the_computed_tables():
    everything, interpolated = STUDY["tables"]()
    assert re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE) == [everything + "\n", interpolated + "\n"]


def test_what_the_page_says_of_signs():
    values = [
        [float(cell) for cell in re.findall(r"([+-]\d\.\d\d) \[", line)] for line in STUDY["tables"]()[0].split("\n")
    ]
    tokens, finished = values[2::2], values[3::2]
    assert all(len(row) == 3 for row in tokens + finished)
    assert all(max(row) > 0 > min(row) for row in tokens) and all(min(row) > 0 for row in finished)
    rows = STUDY["read"]()
    assert len({(row["family"], row["variant"]) for row in rows}) == 28
    assert len({(row["family"], row["variant"]) for row in rows if STUDY["WEIGHT"] in row}) == 20
