"""What was measured -> tables as CSV, and the figures of the write-up on stdout."""

import itertools
import json
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from nex_merge.labels.statistics import correlations, curve
from nex_merge.nex.calibration import calibrate, weights_by_response
from nex_merge.nex.good_mass import mean_score, weigh
from nex_merge.nex.scoring import resampled
from nex_merge.records import Credits, Evidence, SparseGroups
from nex_merge.resampling import halves, split_half
from nex_merge.setup.config import ActivationsConfig
from ranking.families import (
    CALIBRATIONS,
    CHOSEN_ON,
    DATA,
    FAMILIES,
    HELD_OUT,
    SETTINGS,
    SHIPPED,
    WINDOWED,
    WINDOWS,
    Choice,
    label,
    write_csv,
)
from ranking.former_guard import former_collapse
from ranking.printed import print_tables


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
            path.stem: np.load(path) for path in sorted((DATA / family).glob("*.npz")) if "windows" not in path.name
        }
        self.cut = {name: np.load(DATA / family / f"{name}.windows.npz") for name in self.files}
        self.about = {name: json.loads(str(file["about"])) for name, file in self.files.items()}
        self.names = list(self.files)
        self.accuracy = np.array([self.about[name]["accuracy"] for name in self.names])
        self.right = np.stack([self.files[name]["right"] for name in self.names])
        parents = [about["text"] for about in self.about.values() if about["kind"] != "merge"]
        self.collapsed = np.array([
            about["kind"] == "merge" and former_collapse(about["text"], parents)[1] is not None
            for about in self.about.values()
        ])  # fmt: skip

    def evidence(self, name: str, setting: ActivationsConfig, window: str = "") -> Evidence:
        """Mass and credit of a variant's responses; with a window the mass of its rows alone, but all credit."""

        def part(key: str) -> np.ndarray:
            return self.files[name][f"{label(setting)}:{key}"]

        def mass(key: str) -> np.ndarray:
            return self.cut[name][f"{label(setting)}:{window}:{key}"] if window else part(key)

        base = SparseGroups(mass("base_ptr"), mass("base_keys"), mass("base_masses"))
        credits = Credits(part("ptr"), part("keys"), part("effective"), part("redundant"))
        return Evidence(np.arange(len(base.ptr) - 1), base, credits)

    def scores(self, setting: ActivationsConfig, window: str = "") -> dict[str, list[Scored]]:
        """Every variant's score under every calibration."""
        evidences = [self.evidence(name, setting, window) for name in self.names]
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
    wanted = [(setting, "") for setting in settings]
    wanted += [(setting, window) for setting in settings if setting in WINDOWED for window in WINDOWS]
    for setting, window in wanted:
        for calibration, found in variants.scores(setting, window).items():
            x = np.array([s.nex if s.nex is not None else np.nan for s in found])
            g = np.array([[np.nan if v is None else v for v in s.response_scores] for s in found])
            within = [auc(gi, ri) for gi, ri in zip(g, variants.right, strict=True)]
            within = [value for value in within if value is not None]
            for subset, use in subsets.items():
                rows.append({
                    "family": variants.family, "what": "nex", "score": setting.score,
                    "slice_tokens": setting.slice_tokens, "top_k": setting.top_k, "calibration": calibration,
                    "window": window, "variants": subset, "n": int(use.sum()), **agreement(x, variants.accuracy, use),
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
                        "family": variants.family, "what": name, "sign": sign, "score": setting.score,
                        "slice_tokens": setting.slice_tokens, "top_k": setting.top_k, "variants": subset,
                        "n": int(use.sum()), **agreement(x, variants.accuracy, use),
                    })  # fmt: skip
    for name, sign in RIVALS.items():
        for subset, use in subsets.items():
            rows.append({
                "family": variants.family, "what": name, "sign": sign, "variants": subset, "n": int(use.sum()),
                **agreement(sign * variants.column(name), variants.accuracy, use),
            })  # fmt: skip
    return rows


def choose(rows: list[dict[str, Any]]) -> Choice:
    """The way to score with the best mean Spearman over sound variants of the families chosen on."""
    by_way: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        if row["what"] == "nex" and row["variants"] == "sound" and row["family"] in CHOSEN_ON:
            way = (row["score"], row["slice_tokens"], row["top_k"], row["calibration"], row["window"])
            by_way.setdefault(way, []).append(row["spearman"] if row["spearman"] is not None else -1.0)
    mean = {way: float(np.mean(values)) for way, values in by_way.items()}
    score, width, k, calibration, window = best = max(mean, key=lambda way: mean[way])
    print(f"best of {len(mean)} ways on {', '.join(CHOSEN_ON)}: {best}, mean Spearman {mean[best]:.3f}")
    return Choice(ActivationsConfig(score=score, slice_tokens=width, top_k=k), calibration, window)


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


def reliability_rows(variants: Variants, choice: Choice) -> list[dict[str, Any]]:
    """Split-half reliability and agreement with accuracy from ever fewer prompts."""
    rows = []
    setting, calibration, window = choice
    found = variants.scores(setting, window)[calibration]
    sound = np.flatnonzero(~variants.collapsed)
    evidences = [variants.evidence(variants.names[i], setting, window) for i in sound]
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
            "family": variants.family, "setting": label(setting), "calibration": calibration, "window": window,
            "prompts": count,
            "rows_per_response": variants.about[variants.names[0]]["settings"][label(setting)]["rows"],
            "split_half": split_half(drawn),
            "spearman": correlations(whole, variants.accuracy[sound])["spearman"]["value"],
        })  # fmt: skip
    return rows


def tables() -> None:
    """Write the CSV, then print the write-up's tables."""
    families = {name: Variants(name) for name in FAMILIES}
    rows = [row for name in CHOSEN_ON for row in rows_of(families[name], SETTINGS)]
    choice = choose(rows)
    rows += rows_of(families[HELD_OUT], list(dict.fromkeys([choice.setting, SHIPPED])))
    write_csv("ranking_scores.csv", rows)
    write_csv("ranking_variants.csv", [row for variants in families.values() for row in variant_rows(variants)])
    stability = [
        row
        for variants, way in itertools.product(families.values(), (Choice(SHIPPED, "self", ""), choice))
        for row in reliability_rows(variants, way)
    ]
    write_csv("ranking_reliability.csv", stability)
    curves = []
    for variants in families.values():
        use = ~variants.collapsed
        for name in ("entropy", "novelty", "explore_share"):
            x = variants.column(name) if name == "entropy" else variants.setting_column(name, SHIPPED)
            found = curve(x[use], variants.accuracy[use])
            if found is not None:
                vertex = found.pop("vertex")
                curves.append({"family": variants.family, "over": name, **found,
                               **{f"vertex_{k}": v for k, v in vertex.items()}})  # fmt: skip
    write_csv("ranking_curves.csv", curves)
    print_tables(rows, choice, list(families.values()), stability, curves)
