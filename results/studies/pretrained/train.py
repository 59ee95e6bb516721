"""The base from its GGUF file, and LoRA fine-tunes of it, merged into full checkpoints. Seeded and resumable."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, LlamaForCausalLM

from nex_merge.generation import generate
from nex_merge.records import Prompt, Response
from nex_merge.setup.config import GenerationConfig, PromptsConfig
from nex_merge.setup.rendering import encode_prompts
from pretrained.problems import KINDS, Problem, make_problems

# Seeds of problems: training here, prompts 1 and accuracy 2 in measure.py.
TRAINING_SEED, CHECKING_SEED = 0, 3
BATCH, POOL_BATCHES = 8, 16
RANK, ALPHA, LEARNING_RATE, WARMUP, DECAY = 16, 32, 1.5e-3, 10, 0.5
# Training ends early once an expert solves this share of CHECKED fresh problems: merges need room above their parents.
CHECKED, ENOUGH = 32, 0.65
CHECKPOINT_STEPS = 10
MAX_NEW_TOKENS = 64


def convert(source: Path, target: Path) -> None:
    """The GGUF file as a folder of bfloat16 safetensors with its tokenizer and chat template. Needs gguf."""
    where: dict[str, Any] = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    loaded: Any = AutoModelForCausalLM.from_pretrained(**where)
    # The config of what is loaded from GGUF says that it is quantized, which the copy is not.
    del loaded.config.quantization_config
    model: Any = LlamaForCausalLM(loaded.config)
    model.load_state_dict(loaded.state_dict())
    partial = target.with_suffix(".partial")
    AutoTokenizer.from_pretrained(**where).save_pretrained(partial)
    model.to(torch.bfloat16).save_pretrained(partial)
    os.replace(partial, target)


def encode(problems: list[Problem], tokenizer: Any) -> list[list[int]]:
    texts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in problems]
    return encode_prompts(texts, tokenizer, PromptsConfig(file=""))


def answer(
    model: Any, tokenizer: Any, prompts: list[list[int]], drafts: list[Response] | None = None
) -> list[Response]:
    """Greedy responses of up to MAX_NEW_TOKENS tokens."""
    settings = GenerationConfig(max_new_tokens=MAX_NEW_TOKENS, batch_tokens=40_000)
    return generate(model, tokenizer, prompts, settings, references=drafts or ())


def accuracy(problems: list[Problem], responses: list[Response]) -> float:
    return float(np.mean([p.is_right(r.text, r.truncated) for p, r in zip(problems, responses, strict=True)]))


def batch(kind: str, step: int, tokenizer: Any) -> list[tuple[list[int], int]]:
    """The (token ids, length of the prompt) of batch `step`, whose sequences are about equally long."""
    pool, place = divmod(step, POOL_BATCHES)
    size = BATCH * POOL_BATCHES
    problems = make_problems(kind, size, TRAINING_SEED, pool * size)
    ends = [tokenizer(p.response, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for p in problems]
    sequences = [(ids + end, len(ids)) for ids, end in zip(encode(problems, tokenizer), ends, strict=True)]
    sequences.sort(key=lambda s: len(s[0]))
    at = int(np.random.default_rng([TRAINING_SEED, pool]).permutation(POOL_BATCHES)[place])
    return sequences[at * BATCH : (at + 1) * BATCH]


def loss_of(model: Any, sequences: list[tuple[list[int], int]], prefix: int, padding: int) -> torch.Tensor:
    """Mean cross-entropy of the response tokens. All sequences share their first `prefix` tokens, which are read once.

    Right padding under causal attention changes nothing that is learned from, so no mask is needed.
    """
    shared: Any = DynamicCache(config=model.config)
    model.model(input_ids=torch.tensor([sequences[0][0][:prefix]]), past_key_values=shared, use_cache=True)
    for layer in shared.layers:
        layer.keys, layer.values = (x.expand(len(sequences), -1, -1, -1) for x in (layer.keys, layer.values))
    width = max(len(ids) for ids, _ in sequences) - prefix
    rest = torch.tensor([ids[prefix:] + [padding] * (width + prefix - len(ids)) for ids, _ in sequences])
    hidden = model.model(input_ids=rest, past_key_values=shared, use_cache=True).last_hidden_state
    # Position i predicts token i + 1.
    learned = torch.zeros(rest.shape, dtype=torch.bool)
    for row, (ids, length) in enumerate(sequences):
        learned[row, length - prefix : len(ids) - prefix] = True
    logits = model.lm_head(hidden[:, :-1][learned[:, 1:]])
    return torch.nn.functional.cross_entropy(logits, rest[:, 1:][learned[:, 1:]])


def rate(step: int, steps: int) -> float:
    """Share of the full learning rate: a linear warm-up, a plateau, a linear decay over the last part."""
    return min((step + 1) / WARMUP, 1.0, (steps - step) / (DECAY * steps))


def fine_tune(kind: str, root: Path, steps: int, every: int) -> None:
    """Train an expert of `root`/base, or go on with it; `root`/`kind` is written last. Needs peft.

    Every `every` steps its accuracy on fresh problems is printed; from ENOUGH on, training ends.
    """
    from peft import LoraConfig, get_peft_model

    final, saved = root / kind, root / f"{kind}.ckpt"
    if final.exists():
        print(f"{kind}: already trained", flush=True)
        return
    torch.manual_seed(KINDS.index(kind))
    tokenizer: Any = AutoTokenizer.from_pretrained(root / "base")
    model: Any = AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.float32)
    adapted: Any = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear"))
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    step, spent = 0, 0.0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        for name, parameter in trained.items():
            parameter.data.copy_(state["model"][name])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["seconds"]
    # All prompts share their first tokens: those of two that differ at once after the instruction.
    one, other = (encode(make_problems(k, 1, CHECKING_SEED), tokenizer)[0] for k in KINDS)
    prefix = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    fresh = make_problems(kind, CHECKED, CHECKING_SEED)
    began = time.monotonic()
    while step < steps:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate(step, steps)
        sequences = batch(kind, step, tokenizer)
        loss = loss_of(model, sequences, prefix, tokenizer.pad_token_id)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        seconds = spent + time.monotonic() - began
        print(f"{kind} step {step}/{steps} loss {loss.item():.4f} {seconds:.0f} s", flush=True)
        if step % every == 0 or step == steps:
            right = accuracy(fresh, answer(model.eval(), tokenizer, encode(fresh, tokenizer)))
            model.train()
            print(f"{kind} step {step}: {right:.3f} of {CHECKED} fresh problems", flush=True)
            if right >= ENOUGH:
                break
        if step % CHECKPOINT_STEPS == 0:
            state = {
                "model": {name: p.detach() for name, p in trained.items()},
                "optimizer": optimizer.state_dict(),
                "step": step,
                "seconds": spent + time.monotonic() - began,
            }
            torch.save(state, f"{saved}.tmp")
            os.replace(f"{saved}.tmp", saved)
    merged = adapted.merge_and_unload()
    partial = root / f"{kind}.partial"
    tokenizer.save_pretrained(partial)
    merged.to(torch.bfloat16).save_pretrained(partial)
    os.replace(partial, final)
    saved.unlink(missing_ok=True)
