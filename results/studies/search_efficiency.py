"""What does a search cost, and how good is its pick? Writes the tables of search-efficiency.md.

python results/studies/search_efficiency.py replay             # races replayed on known answers; 8 minutes of a core
python results/studies/search_efficiency.py search FAMILY...   # whole searches, resumable; an hour of a core a seed

The labelled rival needs `pip install cmaes`.
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is imported

from rank_evidence import write

DRAWS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("replay", "search"))
    parser.add_argument("families", nargs="*", default=["qwen3-tiny"])
    parser.add_argument("--draws", type=int, default=DRAWS, help="of every pool that is replayed")
    parser.add_argument("--seeds", type=int, default=3, help="of whole searches")
    parser.add_argument("--trials", type=int, default=40, help="of whole searches")
    args = parser.parse_args()
    if args.part == "replay":
        from evidence import racing

        write("search_efficiency_replay.csv", racing.rows(args.draws))
    else:
        from evidence import searches

        for family in args.families:
            searches.measure(family, args.seeds, args.trials)


if __name__ == "__main__":
    main()
