"""The odds that a merge beats base and every parent, and equal weights, in words: where they hang on kin, a range."""

from collections.abc import Iterator, Mapping

from nex_merge.records import Estimate
from nex_merge.runs.rows import VOTED, Row

RANGE = 0.05  # odds that differ by less are given as one
CLAIMED = 0.95  # odds from which a merge is said to be better
_PARENTS, _EQUAL = "base and every parent", "equal weights"


def odds(pick: Row, name: str) -> list[str]:
    """Confidences against the references by a measure, where there are any: a range where they hang on kinship."""
    told = []
    for what, (low, most) in _against(pick, name).items():
        if low is not None:
            ranges = most is not None and most - low >= RANGE
            told.append(f"{what} {low:.0%}" + (f" to {most:.0%}" if ranges else ""))
    found = ["it is the merge with equal weights"] if pick.reference else []
    return [*found, f"confidence that it beats {', '.join(told)}"] if told else found


def _against(pick: Row, name: str) -> Mapping[str, tuple[float | None, float | None]]:
    """The lowest and the highest odds against each reference; no highest where they are kept as one number.

    Those are the odds by the objective, whatever measure is asked for.
    """
    if name not in VOTED:
        return {_PARENTS: (pick.beats_parent, None), _EQUAL: (pick.beats_equal, None)}
    found = pick.estimates.get(name, Estimate(None))
    return {
        _PARENTS: (found.beats_parent, found.beats_parent_most),
        _EQUAL: (found.beats_equal, found.beats_equal_most),
    }


def lowest(pick: Row, name: str, objective: str) -> float | None:
    """The lowest odds against base and every parent by a measure; None: they are kept for the objective alone."""
    return _against(pick, name)[_PARENTS][0] if name in VOTED or name == objective else None


def is_open(pick: Row, name: str) -> bool:
    """Whether it is open that a merge is better than base and every parent: the order hangs on who vouches for whom."""
    low, most = _against(pick, name)[_PARENTS]
    return low is not None and most is not None and low < 0.5 < most


def better(pick: Row, name: str) -> Iterator[str]:
    """The verdict on whether it is better than what one has, apart from the order among merges."""
    low, most = _against(pick, name)[_PARENTS]
    if is_open(pick, name):
        yield (
            "  Better than base and every parent: not settled by answers alone. Merges inherit their parents' mistakes "
            "and vouch for one another, and the order hangs on how many voters they count as."
        )
    elif low is not None and most is not None and low >= CLAIMED:
        yield f"  Better than base and every parent: sound, at {low:.0%} or more however few voters merges count as."
