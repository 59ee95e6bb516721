"""What does a search cost, and how good is its pick? Writes the tables of search-efficiency.md.

python results/studies/search_efficiency.py replay     # races replayed on known answers; 15 minutes of one core
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is imported

from evidence import racing
from rank_evidence import write

DRAWS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("replay",))
    parser.add_argument("--draws", type=int, default=DRAWS, help="of every pool")
    args = parser.parse_args()
    write("search_efficiency_replay.csv", racing.rows(args.draws))


if __name__ == "__main__":
    main()
