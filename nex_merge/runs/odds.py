"""The odds that a merge beats base and every parent, and equal weights, in words: where they hang on kin, a range."""

from collections.abc import Iterator
from typing import Any

from nex_merge.runs.leaderboard import VOTED

Row = dict[str, Any]
RANGE = 0.05  # odds that differ by less are given as one
CLAIMED = 0.95  # odds from which a merge is said to be better


def odds(pick: Row, name: str) -> list[str]:
    """Confidences against the references by a measure, where there are any: a range where they hang on kinship."""
    prefix = f"{name}_" if name in VOTED else ""
    told = []
    for key, what in (("beats_parent", "base and every parent"), ("beats_equal", "equal weights")):
        low, most = pick.get(prefix + key), pick.get(f"{prefix}{key}_most")
        if low is not None:
            ranges = most is not None and most - low >= RANGE
            told.append(f"{what} {low:.0%}" + (f" to {most:.0%}" if ranges else ""))
    found = ["it is the merge with equal weights"] if pick.get("reference") else []
    return [*found, f"confidence that it beats {', '.join(told)}"] if told else found


def lowest(pick: Row, name: str, objective: str) -> float | None:
    """The lowest odds against base and every parent by a measure; None: they are kept for the objective alone."""
    if name in VOTED:
        return pick.get(f"{name}_beats_parent")
    return pick.get("beats_parent") if name == objective else None


def is_open(pick: Row, name: str) -> bool:
    """Whether it is open that a merge is better than base and every parent: the order hangs on who vouches for whom."""
    low, most = pick.get(f"{name}_beats_parent"), pick.get(f"{name}_beats_parent_most")
    return low is not None and most is not None and low < 0.5 < most


def better(pick: Row, name: str) -> Iterator[str]:
    """The verdict on whether it is better than what one has, apart from the order among merges."""
    low, most = pick.get(f"{name}_beats_parent"), pick.get(f"{name}_beats_parent_most")
    if is_open(pick, name):
        yield (
            "  Better than base and every parent: not settled by answers alone. Merges inherit their parents' mistakes "
            "and vouch for one another, and the order hangs on how many voters they count as."
        )
    elif low is not None and most is not None and low >= CLAIMED:
        yield f"  Better than base and every parent: sound, at {low:.0%} or more however few voters merges count as."
