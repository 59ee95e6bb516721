"""What votes should count, and the odds against base and parents. Writes the tables of copies.md.

python results/studies/copies.py forms      # every definition, simulated pools and public models; 10 minutes of a core
python results/studies/copies.py verdicts   # how often the verdict says sound on them; 5 minutes
python results/studies/copies.py stable     # a variant given twice, another order; a minute
python results/studies/copies.py kin        # the odds that the pick beats base and parents; 3 minutes
python results/studies/copies.py searches   # of the searches that are at hand (copies/searches.py)
python results/studies/copies.py tables     # the tables of copies.md, from the CSV files
python results/studies/copies.py families   # before and after on the families that were measured; a minute
"""

import argparse
import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from copies import kin, pools
from copies.forms import FORMS, votes_of
from copies.printed import print_tables
from evidence.pools import rank_correlation

from nex_merge.measures.readings import readings
from nex_merge.measures.votes import Conclusions, Votes

HERE = Path(__file__).parent
DRAWS = 10
CLOSE = 0.1  # behind labels on the same prompts


def write(name: str, rows: list[dict[str, Any]]) -> None:
    with open(HERE / name, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def compare(kind: str, name: str, drawn: list[pools.Pool]) -> dict[str, Any]:
    """Mean Spearman with accuracy of labels and of every form, and the mean error of two of them."""
    found: dict[str, list[float]] = {}
    for pool in drawn:
        votes = votes_of(pool)
        values = {form: way(votes) for form, way in FORMS.items()} | {"labels": pool.labelled}
        for form, value in values.items():
            found.setdefault(form, []).append(_number(rank_correlation(value, pool.accuracy)))
        for form in ("unweighted", "chosen"):
            found.setdefault(f"error, {form}", []).append(float(np.nanmean(np.abs(values[form] - pool.labelled))))
        found.setdefault("voters", []).append(readings(votes).fit.voters)
    return {
        "kind": kind,
        "pool": name,
        "draws": len(drawn),
        **{form: float(np.nanmean(x)) for form, x in found.items()},
    }


def verdicts() -> None:
    """How often the verdict says sound, where the ranking is within 0.1 of labels and where it is further off."""
    rows = []
    for kind, name, drawn in pools.everything(DRAWS):
        found: dict[bool, list[bool]] = {True: [], False: []}
        for pool in drawn:
            values, ranking = pool.consensus()
            labelled = rank_correlation(pool.labelled, pool.accuracy)
            if labelled is not None:
                ranked = rank_correlation(values, pool.accuracy) or 0.0
                found[labelled - ranked <= CLOSE].append(ranking.verdict == "sound")
        rows.append(
            {"kind": kind, "pool": name}
            | {"off": len(found[False]), "sound_of_off": sum(found[False])}
            | {"close": len(found[True]), "sound_of_close": sum(found[True])}
        )
        print(rows[-1], flush=True)
    write("copies_verdicts.csv", rows)


def stable() -> None:
    """The largest change of any value where one variant is given twice, and where variants come in another order."""
    rng, rows = np.random.default_rng(0), []
    for kind, name, drawn in pools.everything(3):
        twice, shuffled = [], []
        for pool in drawn:
            values, conclusions = _values(pool.conclusions, len(pool.truths)), list(pool.conclusions)
            again = conclusions[int(rng.integers(len(conclusions)))]
            twice.append(np.abs(_values([*conclusions, again], len(pool.truths))[:-1] - values).max())
            order = rng.permutation(len(conclusions))
            other = _values([conclusions[i] for i in order], len(pool.truths))
            shuffled.append(np.abs(other - values[order]).max())
        rows.append({"kind": kind, "pool": name, "twice": float(max(twice)), "shuffled": float(max(shuffled))})
    write("copies_stable.csv", rows)


def _values(conclusions: Sequence[Conclusions], prompts: int) -> np.ndarray:
    return np.nanmean(readings(Votes(conclusions, prompts)).fit.by_prompt, axis=1)


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def forms() -> None:
    rows = []
    for kind, name, drawn in pools.everything(DRAWS):
        rows.append(compare(kind, name, drawn))
        print(
            kind, name, f"{rows[-1]['unweighted']:.2f} {rows[-1]['chosen']:.2f} ({rows[-1]['labels']:.2f})", flush=True
        )
    write("copies_forms.csv", rows)


def families() -> None:
    from evidence import toy
    from evidence.pretrained import load

    measured = [("toy", name, [toy.load(name)]) for name in toy.measured()]
    write(
        "copies_families.csv", [compare(*item) for item in (*measured, ("pretrained", "smollm2, experts", [load()[0]]))]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("forms", "verdicts", "stable", "kin", "families", "searches", "tables"))
    part = parser.parse_args().part
    if part == "forms":
        forms()
    elif part == "verdicts":
        verdicts()
    elif part == "stable":
        stable()
    elif part == "tables":
        print_tables()
    elif part == "searches":
        from copies import searches  # loads torch

        write("copies_searches.csv", list(searches.rows()))
    elif part == "kin":
        write("copies_kin.csv", list(kin.rows(100)))
    else:
        families()


if __name__ == "__main__":
    main()
