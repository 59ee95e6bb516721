"""The tables of copies.md, as Markdown on stdout, from the CSV files alone."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

HERE = Path(__file__).parents[1]
BEFORE = Path(__file__).parent / "before"
Row = dict[str, str]


def print_tables() -> None:
    _forms(_read(HERE / "copies_forms.csv"))
    _verdicts(_read(HERE / "copies_verdicts.csv"))
    for name, labels in (
        ("worlds", ("low", "high", "share", "copies", "copied")),
        ("public", ("benchmark", "pool", "prompts")),
        ("families", ("family", "pool")),
    ):
        _before_and_after(name, labels)


def _forms(rows: Sequence[Row]) -> None:
    """Mean Spearman by kind of pool; in brackets, the largest loss of any pool against everybody as one voter."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    forms = [key for key in rows[0] if key not in ("kind", "pool", "draws", "voters") and not key.startswith("error")]
    lines = []
    for form in forms:
        cells = []
        for kind in kinds:
            mine = [row for row in rows if row["kind"] == kind]
            values, alone = ([float(row[each]) for row in mine] for each in (form, "unweighted"))
            worst = min(value - before for value, before in zip(values, alone, strict=True))
            cells.append(f"{np.mean(values):.2f}" + (f" ({worst:.2f})" if worst < -0.005 and form != "labels" else ""))
        lines.append([form, *cells])
    for name in ("error, unweighted", "error, chosen"):
        errors = [np.mean([float(row[name]) for row in rows if row["kind"] == kind]) for kind in kinds]
        lines.append([name, *(f"{error:.2f}" for error in errors)])
    _table(["", *kinds], lines)


def _verdicts(rows: Sequence[Row]) -> None:
    lines = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        off, bad, close, good = (
            sum(int(row[key]) for row in rows if row["kind"] == kind)
            for key in ("off", "sound_of_off", "close", "sound_of_close")
        )
        lines.append([kind, f"{bad} of {off}", f"{good} of {close}"])
    _table(["", "sound, of those further off", "sound, of those within 0.1 of labels"], lines)


def _before_and_after(name: str, labels: Sequence[str]) -> None:
    before, after = (_read(folder / f"evidence_{name}.csv") for folder in (BEFORE, HERE))
    lines = []
    for old, new in zip(before, after, strict=True):
        assert [old[key] for key in labels] == [new[key] for key in labels]
        levels = [", ".join(_two(row[key]) for key in ("sound", "weak", "insufficient")) for row in (old, new)]
        cells = [f"{_two(old[key])}, {_two(new[key])}" for key in ("consensus", "regret_1", "error")]
        lines.append([*(new[key] for key in labels), *cells, _two(new["labels"]), *levels])
    heads = ["consensus: before, after", "regret", "error", "labels", "verdict before", "verdict after"]
    _table([*labels, *heads], lines)


def _read(path: Path) -> list[Row]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _two(text: str) -> str:
    return f"{float(text):.2f}" if text else "-"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    for cells in (head, ["---"] * len(head), *lines):
        print("| " + " | ".join(cells) + " |")
    print()
