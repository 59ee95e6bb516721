"""Measure when NEX ranks merges as accuracy does: every activation score, row length, top k and calibration, on four
families of trained models, against every rival.

    python results/studies/does_nex_rank_merges.py                     # all of it, resumable, two processes
    python results/studies/does_nex_rank_merges.py measure FAMILY...   # only the measuring, of some families
    python results/studies/does_nex_rank_merges.py tables              # only the CSV beside this file

Defaults are chosen on the first three families. The last, HELD_OUT, is looked at once, with what was chosen.
The families besides qwen3-tiny come from

    python -m toy.train --out results/families/NAME --ship results/families/NAME/shipped
        --kinds KIND KIND --seed SEED --hidden 96 --intermediate 1024 --stages base KIND KIND
"""

import argparse
import functools
import multiprocessing
import os

# Two processes of one thread each; torch reads this when it is imported.
os.environ["OMP_NUM_THREADS"] = "1"

from ranking.families import FAMILIES
from ranking.measure import measure
from ranking.planted import planted
from ranking.tables import tables


def measure_all(families: list[str], per_kind: int) -> None:
    with multiprocessing.get_context("spawn").Pool(min(2, len(families))) as pool:
        pool.map(functools.partial(measure, per_kind=per_kind), families, chunksize=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("all", "measure", "planted", "tables"), default="all")
    parser.add_argument("families", nargs="*", help="all, unless named")
    parser.add_argument("--problems", type=int, default=128, help="of each kind, for accuracy")
    args = parser.parse_args()
    if unknown := set(args.families) - FAMILIES.keys():
        parser.error(f"there is no family {', '.join(sorted(unknown))}")
    if args.part in ("all", "measure"):
        measure_all(args.families or list(FAMILIES), args.problems)
    if args.part in ("all", "planted"):
        planted()
    if args.part in ("all", "tables"):
        tables()


if __name__ == "__main__":
    main()
