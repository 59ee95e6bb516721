"""Train the qwen3-tiny family: a base, an expert for each kind of problem, and an overthinker.

    python -m toy.train --out FOLDER

Other kinds, seeds and sizes make other families of the same sort (`--kinds diffs triples --seed 1 --hidden 96`).

Everything is seeded; batch k of a stage depends on (seed, stage, k) alone, and the optimizer's state is saved with the
weights, so that a run that was stopped goes on where its last checkpoint left it. The product never imports this.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from nex_merge.families.qwen3_tiny.problems import CHAIN_LENGTHS, ITEMS, KINDS, make_problem
from toy.tokenizer import make_tokenizer

CHECKPOINT_SECONDS = 60
POOL_BATCHES = 16
IGNORED = -100


@dataclass(frozen=True)
class Stage:
    """One training run. `curriculum`: (share of the steps, longest chain), None meaning the kind's own lengths."""

    name: str
    start: str | None
    steps: int
    learning_rate: float
    kinds: tuple[str, ...]
    curriculum: tuple[tuple[float, int | None], ...] = ((1.0, None),)
    rechecks: int = 0
    warmup: int = 20
    decay: float = 0.5


# How long chains grow while the base learns: one sub-problem at first, in the end as many as the kind has.
CURRICULUM = ((0.35, 1), (0.55, 2), (0.75, 4), (1.0, None))
# Gentle enough that an expert stays mergeable. The base knows pairs well already, the other kinds hardly.
EXPERT_RATES = {"pairs": 4e-4}


def family_stages(kinds: tuple[str, ...], base_steps: int) -> tuple[Stage, ...]:
    """The training runs of a family that knows these kinds, in order."""
    return (
        Stage("base", None, base_steps, 3e-3, kinds, CURRICULUM, warmup=100, decay=0.3),
        *(Stage(kind, "base", 240, EXPERT_RATES.get(kind, 7e-4), (kind,)) for kind in kinds),
        # From the last expert, which has learned what the base hardly knows, so that its answers are right.
        Stage("overthinker", kinds[-1], 300, 7e-4, kinds, rechecks=2),
    )


def make_model(vocab_size: int, seed: int, hidden: int, intermediate: int) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def batches(
    stage: Stage, tokenizer: PreTrainedTokenizerFast, seed: int, tokens: int, first: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (input ids, labels), both int64 [batch, longest], of about `tokens` tokens, from batch `first` on.

    Problems are drawn in pools and sorted by length before they are cut into batches, so that little is padding.
    """
    pool = first // POOL_BATCHES
    padding = tokenizer("<|endoftext|>")["input_ids"][0]
    while True:
        rng = np.random.default_rng([seed, sum(stage.name.encode()), pool])
        share = pool * POOL_BATCHES / stage.steps
        longest = next((length for until, length in stage.curriculum if share < until), stage.curriculum[-1][1])
        sequences = []
        while sum(len(ids) for ids, _ in sequences) < tokens * POOL_BATCHES:
            kind = stage.kinds[int(rng.integers(len(stage.kinds)))]
            lengths = CHAIN_LENGTHS[kind] if longest is None else (1, longest)
            problem = make_problem(kind, rng, lengths)
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": problem.prompt}], tokenize=False, add_generation_prompt=True
            )
            prompt_ids = tokenizer(str(prompt))["input_ids"]
            response_ids = tokenizer(problem.response(stage.rechecks) + "<|im_end|>")["input_ids"]
            sequences.append((prompt_ids + response_ids, len(prompt_ids)))
        sequences.sort(key=lambda s: len(s[0]))
        bounds = np.linspace(0, sum(len(ids) for ids, _ in sequences), POOL_BATCHES + 1)[1:-1]
        cuts = np.searchsorted(np.cumsum([len(ids) for ids, _ in sequences]), bounds)
        groups = np.split(np.arange(len(sequences)), cuts)
        for index, at in enumerate(rng.permutation(POOL_BATCHES)):
            if pool * POOL_BATCHES + index < first:
                continue
            group = [sequences[i] for i in groups[at]]
            width = max(len(ids) for ids, _ in group)
            inputs = torch.full((len(group), width), padding)
            labels = torch.full((len(group), width), IGNORED)
            for row, (ids, prompt_length) in enumerate(group):
                inputs[row, : len(ids)] = torch.tensor(ids)
                labels[row, prompt_length : len(ids)] = torch.tensor(ids[prompt_length:])
            yield inputs, labels
        pool += 1


def optimizers(model: Qwen3ForCausalLM, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest (embeddings, norms)."""
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    outer = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(inner, lr=learning_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(stage: Stage, step: int) -> float:
    """Share of the full learning rate: a linear warm-up, a plateau, and a linear decay over the last part."""
    return min((step + 1) / stage.warmup, 1.0, (stage.steps - step) / (stage.decay * stage.steps))


def train_stage(
    stage: Stage, out: Path, seed: int, tokens: int, tokenizer: PreTrainedTokenizerFast, fresh: Qwen3ForCausalLM
) -> None:
    """Run one stage, or go on with it; its weights end up in `out/<stage>/` (float32), written last.

    `fresh` is the untrained model that a stage without a start begins with.
    """
    final, saved = out / stage.name, out / f"{stage.name}.ckpt"
    if (final / "config.json").exists():
        print(f"{stage.name}: already trained", flush=True)
        return
    model = fresh if stage.start is None else Qwen3ForCausalLM.from_pretrained(out / stage.start, dtype=torch.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)  # pyright: ignore[reportArgumentType]
    opts = optimizers(model, stage.learning_rate)
    step, spent = 0, 0.0
    if saved.exists():
        state = torch.load(saved, weights_only=True, map_location="cpu")
        model.load_state_dict(state["model"])
        for opt, opt_state in zip(opts, state["optimizers"], strict=True):
            opt.load_state_dict(opt_state)
        step, spent = state["step"], state["seconds"]
    model.train()
    began = last = time.monotonic()
    seen = 0
    for inputs, labels in batches(stage, tokenizer, seed, tokens, step):
        if step >= stage.steps:
            break
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = stage.learning_rate * rate(stage, step)
        # Right padding under causal attention changes nothing that is learned from, so no mask is needed.
        logits = model(input_ids=inputs.to(device), use_cache=False).logits[:, :-1]
        wanted = labels[:, 1:].flatten().to(device)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted, ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad()
        step += 1
        seen += inputs.numel()
        if step % 20 == 0 or step == stage.steps:
            speed = seen / (time.monotonic() - began)
            seconds = spent + time.monotonic() - began
            print(
                f"{stage.name} step {step}/{stage.steps} loss {loss.item():.4f} {speed:.0f} tok/s {seconds:.0f} s",
                flush=True,
            )
        if time.monotonic() - last > CHECKPOINT_SECONDS:
            last = time.monotonic()
            state = {
                "model": model.state_dict(),
                "optimizers": [opt.state_dict() for opt in opts],
                "step": step,
                "seconds": spent + last - began,
            }
            torch.save(state, f"{saved}.tmp")
            os.replace(f"{saved}.tmp", saved)
    model.eval()
    partial = out / f"{stage.name}.partial"
    model.save_pretrained(partial)
    os.replace(partial, final)
    saved.unlink(missing_ok=True)


def ship(stages: Sequence[Stage], out: Path, destination: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write every finished stage as a bfloat16 checkpoint with the tokenizer: what the package carries."""
    for stage in stages:
        model = Qwen3ForCausalLM.from_pretrained(out / stage.name, dtype=torch.bfloat16)
        model.generation_config = GenerationConfig(
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
        )
        model.config.update({"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id})
        model.save_pretrained(destination / stage.name)
        tokenizer.save_pretrained(destination / stage.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the finished models")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(ITEMS), help="kinds of problem")
    parser.add_argument("--hidden", type=int, default=128, help="hidden size")
    parser.add_argument("--intermediate", type=int, default=1536, help="units of a layer's MLP")
    parser.add_argument("--base-steps", type=int, default=900)
    parser.add_argument("--tokens", type=int, default=5000, help="tokens per batch")
    parser.add_argument("--stages", nargs="*", help="which to run: base, the kinds, overthinker; all unless given")
    parser.add_argument("--ship", type=Path, help="folder for the stages in bfloat16, with their tokenizer")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(args.kinds)
    stages = [
        stage
        for stage in family_stages(tuple(args.kinds), args.base_steps)
        if args.stages is None or stage.name in args.stages
    ]
    fresh = make_model(len(tokenizer), args.seed, args.hidden, args.intermediate)
    for stage in stages:
        train_stage(stage, args.out, args.seed, args.tokens, tokenizer, fresh)
    if args.ship is not None:
        ship(stages, args.out, args.ship, tokenizer)


if __name__ == "__main__":
    main()
