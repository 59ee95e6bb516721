"""How well do label-free measures rank, and does the verdict say where they don't? Writes the tables of ranking.md.

python results/studies/rank_evidence.py                    # all of it, resumable
python results/studies/rank_evidence.py worlds|public      # simulated pools; public models' answers
python results/studies/rank_evidence.py measure FAMILY...  # merge and answer (ranking/families.py has the families)
python results/studies/rank_evidence.py families           # what consensus makes of the families that were measured
python results/studies/rank_evidence.py samples            # NEX with up to 64 samples of every prompt
"""

import argparse
import csv
import os
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is imported

from evidence import public, worlds
from evidence.pools import figures, summarize
from evidence.printed import print_tables

HERE = Path(__file__).parent
DRAWS = 40


def write(name: str, rows: list[dict[str, Any]]) -> None:
    with open(HERE / name, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def simulate() -> None:
    rows = []
    for world in worlds.worlds():
        rows.append({**world, **summarize([figures(worlds.draw(world, seed)) for seed in range(DRAWS)])})
        print(rows[-1], flush=True)
    write("evidence_worlds.csv", rows)


def rank_public() -> None:
    rows = []
    for benchmark in public.BENCHMARKS:
        pool = public.load(benchmark)
        for name, members in public.groups(pool).items():
            for prompts in public.PROMPTS:
                found = [figures(part) for part in public.drawn(pool, members, prompts)]
                rows.append({"benchmark": benchmark, "pool": name, **summarize(found)})
                print(rows[-1], flush=True)
        for size in public.SIZES:
            found = [figures(part) for part in public.small(pool, size, 64)]
            rows.append({"benchmark": benchmark, "pool": f"{size} at random", **summarize(found)})
        for how in public.POISONS:
            found = [figures(part) for part in public.poisoned(pool, how)]
            rows.append({"benchmark": benchmark, "pool": f"12 at random: {how}", **summarize(found)})
    write("evidence_public.csv", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "part",
        nargs="?",
        choices=("all", "worlds", "public", "measure", "families", "samples", "tables"),
        default="all",
    )
    parser.add_argument("families", nargs="*")
    parser.add_argument("--per-kind", type=int, default=256, help="problems of each kind for accuracy")
    parser.add_argument("--blocks", type=int, default=1, help="of 16 samples of each prompt; 1 hour of a core each")
    args = parser.parse_args()
    if args.part in ("all", "measure"):
        from evidence import toy  # loads torch

        for family in args.families or ("qwen3-tiny",):
            toy.measure(family, args.per_kind)
    if args.part in ("all", "families"):
        from evidence import families

        write("evidence_families.csv", families.rows())
    if args.part in ("all", "samples"):
        from evidence import samples

        samples.measure(range(args.blocks), samples.spread(samples.chosen()))
        write("evidence_samples.csv", samples.tables(args.blocks))
    if args.part in ("all", "worlds"):
        simulate()
    if args.part in ("all", "public"):
        rank_public()
    if args.part in ("all", "tables"):
        print_tables()


if __name__ == "__main__":
    main()
