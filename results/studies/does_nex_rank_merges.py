"""Measure when NEX ranks merges as accuracy does: every activation score, row length, top k and calibration, on four
families of trained models, against every rival.

    python results/studies/does_nex_rank_merges.py measure FAMILY...   # resumable; one process per family is fine
    python results/studies/does_nex_rank_merges.py planted              # collapsed merges of qwen3-tiny on purpose
    python results/studies/does_nex_rank_merges.py tables               # CSV beside this file, figures on stdout

Defaults are chosen on the first three families. The last, HELD_OUT, is looked at once, with what was chosen.
The families besides qwen3-tiny come from

    python -m nex_merge.families.qwen3_tiny.train --out results/families/NAME --ship results/families/NAME/shipped
        --kinds KIND KIND --seed SEED --hidden 96 --intermediate 1024 --stages base KIND KIND
"""

import argparse
import csv
import dataclasses
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from nex_merge.config import ActivationsConfig, GenerationConfig, PromptsConfig
from nex_merge.correlate import correlations, curve
from nex_merge.families.qwen3_tiny.problems import make_problems
from nex_merge.guards import collapse, measure_text
from nex_merge.nex.calibration import analyse, calibrate, stack_credits, weights_by_response
from nex_merge.nex.good_mass import mean_score, weigh
from nex_merge.nex.reliability import halves, resampled, score, split_half
from nex_merge.records import Credits, Evidence, NeuronWeights, SparseGroups, TextMeasures

HERE = Path(__file__).parent
DATA = HERE.parent / "study_data"
FAMILIES = {
    "qwen3-tiny": ("nex_merge/families/qwen3_tiny/weights", ("pairs", "signs")),
    "diffs-signs": ("results/families/diffs-signs/shipped", ("diffs", "signs")),
    "pairs-triples": ("results/families/pairs-triples/shipped", ("pairs", "triples")),
    "diffs-triples": ("results/families/diffs-triples/shipped", ("diffs", "triples")),
}
HELD_OUT = "diffs-triples"
CHOSEN_ON = tuple(name for name in FAMILIES if name != HELD_OUT)
# Random draws from good to ruinous: weights go far beyond what merges well.
WIDE = {"low": 0.0, "high": 1.5}
SPACES: tuple[tuple[int, dict[str, Any]], ...] = (
    (8, {"methods": ["task_arithmetic"], "parameters": {"weight": WIDE}}),
    (10, {"methods": ["ties"], "parameters": {"weight": WIDE, "density": {"low": 0.2, "high": 1.0}}}),
    (6, {"methods": ["dare_ties"], "parameters": {"weight": WIDE, "density": {"low": 0.2, "high": 1.0}}}),
    (6, {"methods": ["della"],
         "parameters": {"weight": WIDE, "density": {"low": 0.25, "high": 0.85}, "epsilon": 0.1}}),
    (4, {"methods": ["breadcrumbs"], "parameters": {"weight": WIDE, "density": {"low": 0.2, "high": 0.95}}}),
    (3, {"methods": ["linear"], "parameters": {"weight": {"low": 0.05, "high": 1.0}}}),
    (3, {"methods": ["slerp"], "parameters": {"t": {"low": 0.0, "high": 1.0}}, "layer_groups": 3}),
)  # fmt: skip
PROMPTS_SEED, PROBLEMS_SEED = 1, 2
PROMPTS_PER_KIND = 32
SETTINGS = [
    ActivationsConfig(score=name, slice_tokens=width, top_k=k)
    for name in ("logit_contribution", "magnitude", "activation")
    for width in (5, 10)
    for k in (32, 64, 128)
]
# What the shipped configurations use for these families: the paper's score and calibration, with rows made shorter.
SHIPPED = ActivationsConfig(score="logit_contribution", slice_tokens=5, top_k=64)
CALIBRATIONS = ("self", "crossfit", "parents", "pool")
RHO, MIN_RUN = 0.95, 2


def label(setting: ActivationsConfig) -> str:
    return f"{setting.score}/{setting.slice_tokens}/{setting.top_k}"


# --- measuring ---------------------------------------------------------------------------------------------------


def recipes(folders: dict[str, Path]) -> dict[str, Any]:
    """base, parents and the 40 variants by name."""
    import optuna

    from nex_merge.merging import method_specs
    from nex_merge.proposal import passthrough, propose
    from nex_merge.search_space import load_space

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = {
        name: passthrough("base" if name == "base" else "parent", name, folder, "bfloat16")
        for name, folder in folders.items()
    }
    models, number = [name for name in folders if name != "base"], 0
    for count, space in SPACES:
        checked = load_space(space, method_specs(), models)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
        for _ in range(count):
            found[f"{number:04d}"] = propose(checked, folders, "bfloat16", study.ask(), 1000 + number)
            number += 1
    return found


def measure(family: str, per_kind: int, every: int) -> None:
    """Merge, answer, capture and analyse every variant of a family; one .npz each."""
    import torch

    from nex_merge.capture import capture_all
    from nex_merge.evaluate import load_tokenizer
    from nex_merge.generation import generate
    from nex_merge.merging import Merger
    from nex_merge.prompts import encode_prompts
    from nex_merge.records import Prompt

    root, kinds = FAMILIES[family]
    folders = {name: Path(root).resolve() / name for name in ("base", *kinds)}
    merger = Merger(folders, "base", "cpu", torch.float32)
    tokenizer = load_tokenizer(folders["base"])
    prompts = [p for kind in kinds for p in make_problems(kind, PROMPTS_PER_KIND, PROMPTS_SEED)]
    problems = [p for kind in kinds for p in make_problems(kind, per_kind, PROBLEMS_SEED)]

    def encode(items):
        texts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in items]
        return encode_prompts(texts, tokenizer, PromptsConfig(file=""))

    settings = GenerationConfig(max_new_tokens=640, batch_tokens=400_000)
    (DATA / family).mkdir(parents=True, exist_ok=True)
    for name, recipe in recipes(folders).items():
        file = DATA / family / f"{name}.npz"
        if file.exists() or (name.isdigit() and int(name) % every):
            continue
        began = time.monotonic()
        merger.load(recipe)
        responses = generate(merger.model, tokenizer, encode(prompts), settings)
        answers = generate(merger.model, tokenizer, encode(problems), settings)
        right = [p.is_right(r.text) for p, r in zip(problems, answers, strict=True)]
        caches, stats = capture_all(merger.model, responses, SETTINGS)
        about = {
            "kind": recipe.kind,
            "method": recipe.method,
            "parameters": dict(recipe.parameters),
            "accuracy": float(np.mean(right)),
            "by_kind": {
                kind: float(np.mean([r for r, p in zip(right, problems, strict=True) if p.kind == kind]))
                for kind in kinds
            },
            "problems": len(right),
            "text": dataclasses.asdict(measure_text(responses)),
            "mean_tokens": float(np.mean([len(r.token_ids) for r in responses])),
            **{
                key: float(np.mean([getattr(s, key) for s in stats]))
                for key in ("entropy", "entropy_spread", "self_certainty")
            },
            "perplexity": float(np.exp(min(-np.mean([s.logprob for s in stats]), 700))),
            "settings": {},
        }
        arrays: dict[str, np.ndarray] = {
            "right": np.array([p.is_right(r.text) for p, r in zip(prompts, responses, strict=True)]),
            "response_entropy": np.array([s.entropy for s in stats]),
            "response_tokens": np.array([len(r.token_ids) for r in responses]),
        }
        neurons = merger.model.config.num_hidden_layers * merger.model.config.intermediate_size
        for setting, cache in zip(SETTINGS, caches, strict=True):
            analyses = analyse(cache, RHO, MIN_RUN)
            credits = stack_credits(analyses)
            scored = score(Evidence(np.arange(cache.responses), cache.base, credits), analyses, "given",
                           NeuronWeights(np.zeros(0, np.uint32), np.zeros(0, np.float32)))  # fmt: skip
            known = [item for item in analyses if item.novelty is not None]
            about["settings"][label(setting)] = {
                "rows": float(np.diff(cache.sample_row_ptr).mean()),
                "cycles": scored.cycles,
                "credited": scored.credited,
                "explore_share": scored.explore_share,
                "fallbacks": dict(scored.fallbacks),
                "utilization": float(np.diff(cache.base.ptr).mean()) / neurons,
                "novelty": float(np.mean([item.novelty.slopes.mean() for item in known])) if known else None,
            }
            for part, value in (
                ("base_ptr", cache.base.ptr), ("base_keys", cache.base.keys), ("base_masses", cache.base.masses),
                ("ptr", credits.ptr), ("keys", credits.keys),
                ("effective", credits.effective), ("redundant", credits.redundant),
            ):  # fmt: skip
                arrays[f"{label(setting)}:{part}"] = value
        arrays["about"] = np.array(json.dumps(about))
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, **arrays)
        os.replace(partial, file)
        seconds = time.monotonic() - began
        print(f"{family} {name} {recipe.method}: accuracy {about['accuracy']:.3f}, {seconds:.0f} s", flush=True)


def planted() -> None:
    """Merges of qwen3-tiny that are broken on purpose, and its sound members: raw NEX, text, and what guards say."""
    import torch

    from nex_merge.capture import capture_all
    from nex_merge.evaluate import load_tokenizer
    from nex_merge.generation import generate
    from nex_merge.merging import Merger
    from nex_merge.prompts import encode_prompts
    from nex_merge.proposal import passthrough
    from nex_merge.records import MergeRecipe, Prompt

    root, kinds = FAMILIES["qwen3-tiny"]
    folders = {name: Path(root).resolve() / name for name in ("base", *kinds, "overthinker")}
    merger = Merger(folders, "base", "cpu", torch.float32)
    tokenizer = load_tokenizer(folders["base"])
    prompts = [p for kind in kinds for p in make_problems(kind, PROMPTS_PER_KIND, PROMPTS_SEED)]
    texts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in prompts]
    encoded = encode_prompts(texts, tokenizer, PromptsConfig(file=""))
    variants = {name: passthrough("parent", name, folder, "bfloat16") for name, folder in folders.items()}

    def merge(method: str, weights: dict[str, float], **parameters: float) -> MergeRecipe:
        models = [
            {"model": str(folders[name]), "parameters": {"weight": weight, **parameters}}
            for name, weight in weights.items()
        ]
        config = {"merge_method": method, "base_model": str(folders["base"]), "models": models, "dtype": "float32",
                  "out_dtype": "bfloat16"}  # fmt: skip
        return MergeRecipe("merge", method, config, 0)

    for weight in (1.0, 1.25, 1.5, 2.0, 3.0, 5.0):
        variants[f"task_arithmetic both {weight:g}"] = merge("task_arithmetic", dict.fromkeys(kinds, weight))
    for name in kinds:
        for weight in (1.5, 2.0, 3.0):
            variants[f"task_arithmetic {name} {weight:g}"] = merge("task_arithmetic", {name: weight})
    variants["ties both 3, density 0.2"] = merge("ties", dict.fromkeys(kinds, 3.0), density=0.2)
    settings = GenerationConfig(max_new_tokens=832, batch_tokens=400_000)
    rows, parents = [], []
    for name, recipe in variants.items():
        merger.load(recipe)
        responses = generate(merger.model, tokenizer, encoded, settings)
        caches, _ = capture_all(merger.model, responses, [SETTINGS[1]])
        analyses = analyse(caches[0], RHO, MIN_RUN)
        evidence = Evidence(np.arange(caches[0].responses), caches[0].base, stack_credits(analyses))
        scored = score(evidence, analyses, "self")
        text = measure_text(responses)
        if recipe.kind != "merge" and name != "overthinker":
            parents.append(text)
        violation, reason = collapse(text, parents)
        right = np.mean([p.is_right(r.text) for p, r in zip(prompts, responses, strict=True)])
        rows.append({
            "variant": name, "accuracy on the prompts": float(right), "nex": scored.nex,
            "cycles_per_response": scored.cycles / scored.responses,
            "mean_tokens": float(np.mean([len(r.token_ids) for r in responses])), **dataclasses.asdict(text),
            "violation": violation, "reason": reason or "",
        })  # fmt: skip
        print(rows[-1], flush=True)
    write_csv("ranking_planted.csv", rows)


# --- tables ------------------------------------------------------------------------------------------------------


class Scored(NamedTuple):
    """A variant's score: what reliability.score gives, without its interval, which is not needed here."""

    nex: float | None
    response_scores: list[float | None]
    weighted_mass: float
    saturation: float


class Variants:
    """Everything measured of one family."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.files = {
            path.stem: np.load(path) for path in sorted((DATA / family).glob("*.npz")) if "partial" not in path.name
        }
        self.about = {name: json.loads(str(file["about"])) for name, file in self.files.items()}
        self.names = list(self.files)
        self.accuracy = np.array([self.about[name]["accuracy"] for name in self.names])
        self.right = np.stack([self.files[name]["right"] for name in self.names])
        parents = [TextMeasures(**about["text"]) for about in self.about.values() if about["kind"] != "merge"]
        self.collapsed = np.array([
            about["kind"] == "merge" and collapse(TextMeasures(**about["text"]), parents)[1] is not None
            for about in self.about.values()
        ])  # fmt: skip

    def evidence(self, name: str, setting: ActivationsConfig) -> Evidence:
        def part(key: str) -> np.ndarray:
            return self.files[name][f"{label(setting)}:{key}"]

        base = SparseGroups(part("base_ptr"), part("base_keys"), part("base_masses"))
        credits = Credits(part("ptr"), part("keys"), part("effective"), part("redundant"))
        return Evidence(np.arange(len(base.ptr) - 1), base, credits)

    def scores(self, setting: ActivationsConfig) -> dict[str, list[Scored]]:
        """Every variant's score under every calibration."""
        evidences = [self.evidence(name, setting) for name in self.names]
        merge = [self.about[name]["kind"] == "merge" for name in self.names]
        shared = {
            "parents": calibrate(*(e.credits for e, m in zip(evidences, merge, strict=True) if not m)),
            "pool": calibrate(*(e.credits for e, gone in zip(evidences, self.collapsed, strict=True) if not gone)),
        }
        found: dict[str, list[Scored]] = {}
        for calibration in CALIBRATIONS:
            for evidence in evidences:
                weights = weights_by_response(evidence, shared.get(calibration), calibration == "crossfit")
                masses = [weigh(evidence.base, i, w) for i, w in enumerate(weights)]
                carried, total = sum(m.carried for m in masses), sum(m.total for m in masses)
                fractions = [m.fraction for m in masses]
                saturated = sum(m.saturated for m in masses)
                found.setdefault(calibration, []).append(
                    Scored(mean_score(fractions), fractions, carried / total, saturated / carried if carried else 0.0)
                )
        return found

    def column(self, key: str) -> np.ndarray:
        return np.array([self.about[name][key] for name in self.names], float)

    def setting_column(self, key: str, setting: ActivationsConfig) -> np.ndarray:
        values = [self.about[name]["settings"][label(setting)][key] for name in self.names]
        return np.array([np.nan if value is None else value for value in values], float)


def auc(scores: np.ndarray, right: np.ndarray) -> float | None:
    """Probability that a right response scores above a wrong one, ties counting half."""
    known = np.isfinite(scores)
    scores, right = scores[known], right[known]
    positive, negative = int(right.sum()), int((~right).sum())
    if not positive or not negative:
        return None
    return float((rankdata(scores)[right].sum() - positive * (positive + 1) / 2) / (positive * negative))


def agreement(x: np.ndarray, accuracy: np.ndarray, use: np.ndarray) -> dict[str, Any]:
    """Correlations with intervals and regret of the top 1, 3, 5, over the variants in use."""
    x, accuracy = x[use], accuracy[use]
    order = np.argsort(-x, kind="stable")
    found: dict[str, Any] = {}
    for name, item in correlations(x, accuracy).items():
        found |= {name: item["value"], f"{name}_low": item["low"], f"{name}_high": item["high"]}
    return found | {f"regret_{k}": float(accuracy.max() - accuracy[order[:k]].max()) for k in (1, 3, 5)}


def length_of(x: np.ndarray, accuracy: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
    """Spearman of a score with mean tokens, and with accuracy once both are freed of mean tokens (by ranks)."""
    ranks = [rankdata(values) for values in (x, accuracy, tokens)]
    freed = [r - np.polyval(np.polyfit(ranks[2], r, 1), ranks[2]) for r in ranks[:2]]
    return {
        "spearman_with_tokens": float(np.corrcoef(ranks[0], ranks[2])[0, 1]),
        "spearman_given_tokens": float(np.corrcoef(*freed)[0, 1]),
    }


RIVALS = {"mean_tokens": -1, "entropy": -1, "entropy_spread": -1, "self_certainty": 1, "perplexity": -1}
SETTING_RIVALS = {"utilization": -1, "novelty": -1, "explore_share": -1, "cycles": 1}


def rows_of(variants: Variants, settings: list[ActivationsConfig]) -> list[dict[str, Any]]:
    """A row per setting and calibration, and per rival, once over sound variants and once over all."""
    rows = []
    subsets = {"sound": ~variants.collapsed, "all": np.ones(len(variants.names), bool)}
    for setting in settings:
        for calibration, found in variants.scores(setting).items():
            x = np.array([s.nex if s.nex is not None else np.nan for s in found])
            g = np.array([[np.nan if v is None else v for v in s.response_scores] for s in found])
            within = [auc(gi, ri) for gi, ri in zip(g, variants.right, strict=True)]
            within = [value for value in within if value is not None]
            for subset, use in subsets.items():
                rows.append({
                    "family": variants.family, "what": "nex", "score": setting.score,
                    "slice_tokens": setting.slice_tokens, "top_k": setting.top_k, "calibration": calibration,
                    "variants": subset, "n": int(use.sum()), **agreement(x, variants.accuracy, use),
                    **length_of(x[use], variants.accuracy[use], variants.column("mean_tokens")[use]),
                    "auc_pooled": auc(g.ravel(), variants.right.ravel()),
                    "auc_within": float(np.mean(within)) if within else None,
                    "cycles_per_response": float(variants.setting_column("cycles", setting).mean() / g.shape[1]),
                    "weighted_mass": float(np.mean([s.weighted_mass for s in found])),
                    "saturation": float(np.mean([s.saturation for s in found])),
                })  # fmt: skip
        for name, sign in SETTING_RIVALS.items():
            x = sign * variants.setting_column(name, setting)
            for subset, use in subsets.items():
                if np.isfinite(x[use]).all():
                    rows.append({
                        "family": variants.family, "what": name, "score": setting.score,
                        "slice_tokens": setting.slice_tokens, "top_k": setting.top_k, "variants": subset,
                        "n": int(use.sum()), **agreement(x, variants.accuracy, use),
                    })  # fmt: skip
    for name, sign in RIVALS.items():
        for subset, use in subsets.items():
            rows.append({
                "family": variants.family, "what": name, "variants": subset, "n": int(use.sum()),
                **agreement(sign * variants.column(name), variants.accuracy, use),
            })  # fmt: skip
    return rows


def write_csv(name: str, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(HERE / name, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def choose(rows: list[dict[str, Any]]) -> tuple[ActivationsConfig, str]:
    """The setting and calibration with the best mean Spearman over sound variants of the families chosen on."""
    mean: dict[tuple[str, int, int, str], list[float]] = {}
    for row in rows:
        if row["what"] == "nex" and row["variants"] == "sound" and row["family"] in CHOSEN_ON:
            key = (row["score"], row["slice_tokens"], row["top_k"], row["calibration"])
            mean.setdefault(key, []).append(row["spearman"] if row["spearman"] is not None else -1.0)
    best = max(mean, key=lambda key: float(np.mean(mean[key])))
    return ActivationsConfig(score=best[0], slice_tokens=best[1], top_k=best[2]), best[3]  # pyright: ignore[reportArgumentType]


def variant_rows(variants: Variants) -> list[dict[str, Any]]:
    return [
        {
            "family": variants.family, "variant": name, "kind": about["kind"], "method": about["method"],
            "accuracy": about["accuracy"], "problems": about["problems"], "collapsed": bool(gone),
            **{k: about[k] for k in RIVALS}, **about["text"],
            "parameters": json.dumps(about["parameters"]),
        }
        for (name, about), gone in zip(variants.about.items(), variants.collapsed, strict=True)
    ]  # fmt: skip


def reliability_rows(variants: Variants, setting: ActivationsConfig, calibration: str) -> list[dict[str, Any]]:
    """Split-half reliability and agreement with accuracy from ever fewer prompts."""
    rows = []
    found = variants.scores(setting)[calibration]
    sound = np.flatnonzero(~variants.collapsed)
    evidences = [variants.evidence(variants.names[i], setting) for i in sound]
    everyone = np.arange(len(evidences[0].prompts))
    rng = np.random.default_rng(0)
    for count in (8, 16, 32, 64):
        keep = np.zeros(len(everyone), int)
        half = len(everyone) // 2
        # As many prompts of either kind, drawn once.
        for start in (0, half):
            keep[start + rng.permutation(half)[: count // 2]] = 1
        chosen = np.flatnonzero(keep)
        halved = np.zeros((40, len(everyone)), int)
        halved[:, chosen] = halves(everyone[chosen])
        pairs = list(zip(evidences, (found[i] for i in sound), strict=True))
        drawn = np.stack([resampled(e, s.response_scores, calibration, halved) for e, s in pairs])
        whole = np.stack([resampled(e, s.response_scores, calibration, keep[None]) for e, s in pairs])[:, 0]
        rows.append({
            "family": variants.family, "calibration": calibration, "prompts": count,
            "rows_per_response": variants.about[variants.names[0]]["settings"][label(setting)]["rows"],
            "split_half": split_half(drawn),
            "spearman": correlations(whole, variants.accuracy[sound])["spearman"]["value"],
        })  # fmt: skip
    return rows


def tables() -> None:
    families = {name: Variants(name) for name in FAMILIES if (DATA / name).exists()}
    rows = [row for name in CHOSEN_ON if name in families for row in rows_of(families[name], SETTINGS)]
    setting, calibration = choose(rows)
    print(f"chosen on {', '.join(name for name in CHOSEN_ON if name in families)}: {label(setting)} {calibration}")
    if HELD_OUT in families:
        rows += rows_of(families[HELD_OUT], [setting, SHIPPED])
    write_csv("ranking_scores.csv", rows)
    write_csv("ranking_variants.csv", [row for variants in families.values() for row in variant_rows(variants)])
    stability = [
        row
        for variants, calibrated in itertools.product(families.values(), ("self", calibration))
        for row in reliability_rows(variants, setting, calibrated)
    ]
    write_csv("ranking_reliability.csv", stability)
    curves = []
    for variants in families.values():
        use = ~variants.collapsed
        for name in ("entropy", "novelty", "explore_share"):
            x = variants.column(name) if name == "entropy" else variants.setting_column(name, setting)
            found = curve(x[use], variants.accuracy[use])
            if found is not None:
                vertex = found.pop("vertex")
                curves.append({"family": variants.family, "over": name, **found,
                               **{f"vertex_{k}": v for k, v in vertex.items()}})  # fmt: skip
    write_csv("ranking_curves.csv", curves)
    for row in rows:
        chosen = (row.get("score"), row.get("slice_tokens"), row.get("top_k")) == (
            setting.score, setting.slice_tokens, setting.top_k,
        )  # fmt: skip
        if row["variants"] == "sound" and (chosen or "score" not in row):
            name = f"{row['what']} {row.get('calibration', '')}"
            print(
                f"{row['family']:14s} {name:20s} rho {row['spearman']:+.2f} "
                f"[{row['spearman_low']:+.2f}, {row['spearman_high']:+.2f}] regret {row['regret_1']:.3f} "
                f"{row['regret_3']:.3f} {row['regret_5']:.3f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("families", nargs="+", choices=list(FAMILIES))
    measuring.add_argument("--problems", type=int, default=256, help="of each kind, for accuracy")
    commands.add_parser("planted")
    measuring.add_argument("--every", type=int, default=1, help="only every so many-th of the 40 variants")
    commands.add_parser("tables")
    args = parser.parse_args()
    if args.command == "measure":
        for family in args.families:
            measure(family, args.problems, args.every)
    else:
        {"planted": planted, "tables": tables}[args.command]()


if __name__ == "__main__":
    main()
