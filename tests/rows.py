"""Leaderboard rows as tests make and read them."""

from nex_merge.records import Estimate
from nex_merge.runs.rows import Row


def row_of(trial, kind="merge", state="complete", method="ties", values=None, **fields) -> Row:
    """A row with values of some measures, by name; None: without one."""
    estimates = {name: Estimate(value) for name, value in (values or {}).items()}
    return Row(trial, kind, method, state, estimates=estimates, **{"objectives": ("nex",), **fields})


def by_column(rows) -> list[dict]:
    """Rows as mappings from the leaderboard's columns."""
    return [row.as_mapping() for row in rows]
