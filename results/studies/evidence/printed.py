"""The tables of ranking.md, as Markdown on stdout, from the CSV files alone."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]


def read(name: str) -> list[dict[str, str]]:
    with open(HERE / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def print_tables() -> None:
    worlds = read("evidence_worlds.csv")
    plain, copies = [r for r in worlds if r["copies"] == "0"], [r for r in worlds if r["copies"] != "0"]
    _table(
        (
            "accuracy",
            "share",
            "consensus (labels)",
            "pool right (claimed)",
            "sound, weak, insufficient",
            "sound, of close",
        ),
        plain,
        lambda r: (f"{r['low']} to {r['high']}", r["share"], *_judged(r)),
    )
    _table(
        ("near copies of 24", "of a model right on", "consensus (labels)", "pool right (claimed)",
         "sound, weak, insufficient", "sound, of close"),
        copies,
        lambda r: (r["copies"], r["copied"], *_judged(r)),
    )  # fmt: skip
    public = read("evidence_public.csv")
    _table(
        ("benchmark", "pool", "models", "prompts", "consensus (labels)", "agreement", "regret (labels)", "error",
         "pool right (claimed)", "sound, weak, insufficient"),
        public,
        lambda r: (
            r["benchmark"], r["pool"], _whole(r["models"]), _whole(r["prompts"]), *_judged(r)[:1],
            _two(r["agreement"]), f"{_two(r['regret_1'])} ({_two(r['labels_regret_1'])})", _two(r["error"]),
            *_judged(r)[1:3],
        ),
    )  # fmt: skip
    _table(
        ("family", "pool", "consensus (labels)", "interval", "agreement", "regret of 1, 3 (labels)", "error",
         "pool right (claimed)", "sound, weak, insufficient"),
        read("evidence_families.csv"),
        lambda r: (
            r["family"], r["pool"], _judged(r)[0], f"{_two(r['low'])} to {_two(r['high'])}" if r["low"] else "-",
            _two(r["agreement"]), f"{_two(r['regret_1'])}, {_two(r['regret_3'])} ({_two(r['labels_regret_1'])})",
            _two(r["error"]), *_judged(r)[1:3],
        ),
    )  # fmt: skip


def _judged(row: dict[str, str]) -> tuple[str, ...]:
    return (
        f"{_two(row['consensus'])} ({_two(row['labels'])})",
        f"{_two(row['pool_right'])} ({_two(row['claimed'])})",
        ", ".join(_two(row[level]) for level in ("sound", "weak", "insufficient")),
        _two(row["sound_of_close"]),
    )


def _two(text: str) -> str:
    return f"{float(text):.2f}" if text else "-"


def _whole(text: str) -> str:
    return f"{float(text):.0f}"


def _table(
    head: Sequence[str], rows: Sequence[dict[str, str]], cells: Callable[[dict[str, str]], Sequence[Any]]
) -> None:
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(map(str, cells(row))) + " |")
    print()
