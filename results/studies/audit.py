"""What a few labels do for consensus: they find an inverted ranking, and help a good one a little.

    python results/studies/audit.py [ANSWERS]      # writes audit.csv; a few minutes on one core

`ANSWERS` (default: answers/ beside this file) holds the public models' answers, a file for each benchmark: problems
as rows, with the right answer under `gold` and a column for each model. Everything is computed by the product's own
functions. Parts, each a block of rows in audit.csv:

- `inverted`, `between`, `holds`: simulated worlds. 30 variants answer 64 prompts once; their accuracies are drawn
  uniformly; a wrong answer is, with probability `share`, the one wrong answer that everybody gives, else one of ten
  others. How often is the verdict insufficient, and how often does an audit of n random labels contradict it?
- `ranking`: mean Spearman correlation with accuracy on all problems, over draws of 64 of them, with known truths.
"""

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from nex_merge.labels.audit import draw, standing
from nex_merge.measures.consensus import fit_parts
from nex_merge.measures.consensus_verdict import Audit, assess_consensus, audit_of
from nex_merge.measures.readings import readings
from nex_merge.measures.votes import Conclusions, Key, Votes
from nex_merge.resampling import FEWEST_VARIANTS, halves, split_half

HERE = Path(__file__).parent
VARIANTS, PROMPTS, WORLDS, WRONG = 30, 64, 1000, 10
LABELS = (4, 8, 12, 16)
# Worlds for the verdict without labels, whose split-half reliability takes 40 fits.
FULL_VERDICTS = 100
DRAWS, TRUTHS, POOL = 20, (8, 16, 32), 12
# Worlds: accuracies from and to, share of wrong answers that are the popular one.
INVERTED = ((0.05, 0.30, 0.9),)
BETWEEN = ((0.05, 0.30, 0.6), (0.10, 0.60, 0.9))
HOLDS = ((0.30, 0.90, 0.0), (0.30, 0.90, 0.3))
RIGHT = "right"
STANDINGS, LEVELS = ("refuted", "contradicted", "in line", "too few"), ("insufficient", "weak", "sound")
Finding = set[str]


def world(rng: np.random.Generator, low: float, high: float, share: float) -> list[Conclusions]:
    """One conclusion of every variant to every prompt."""
    accuracies = rng.uniform(low, high, VARIANTS)
    is_right = rng.random((VARIANTS, PROMPTS)) < accuracies[:, None]
    is_popular = rng.random((VARIANTS, PROMPTS)) < share
    other = rng.integers(WRONG, size=(VARIANTS, PROMPTS))
    return [
        {
            p: [RIGHT if is_right[v, p] else "popular" if is_popular[v, p] else f"wrong {other[v, p]}"]
            for p in range(PROMPTS)
        }
        for v in range(VARIANTS)
    ]


def simulate(part: str, low: float, high: float, share: float) -> Iterator[dict[str, object]]:
    """Levels of the verdict without labels, then what audits with n labels say, over independent worlds."""
    setting = {"part": part, "pool": f"{low:.0%} to {high:.0%}, share {share}"}
    levels: list[str] = []
    found: dict[int, list[Finding]] = {n: [] for n in LABELS}
    claimed, right = [], []
    for number in range(WORLDS):
        conclusions = world(np.random.default_rng([int(100 * low), int(10 * share), number]), low, high, share)
        fit = readings(Votes(conclusions, PROMPTS)).fit
        claimed.append(np.mean(list(fit.claimed.values())))
        right.append(np.mean([fit.pooled[p] == RIGHT for p in range(PROMPTS)]))
        if number < FULL_VERDICTS:
            levels.append(verdict(conclusions, {}, reliability_of(conclusions)))
        for n in LABELS:
            truths = dict.fromkeys(draw(PROMPTS, n, number), RIGHT)
            audit = audit_of(fit, truths)
            assert audit is not None
            # Halves that agree: what speaks against the ranking is the pool's answers and the audit alone.
            found[n].append(finding(audit) | {verdict(conclusions, truths, 1.0)})
    pool = {"right": f"{np.mean(right):.4f}", "claimed": f"{np.mean(claimed):.4f}"}
    yield setting | pool | {"labels": 0, "draws": len(levels)} | shares([{level} for level in levels], LEVELS)
    for n in LABELS:
        yield setting | pool | {"labels": n, "draws": WORLDS} | shares(found[n])


def reliability_of(conclusions: Sequence[Conclusions]) -> float | None:
    return split_half(fit_parts(readings(Votes(conclusions, PROMPTS)), halves(np.arange(PROMPTS))))


def verdict(conclusions: Sequence[Conclusions], truths: Mapping[int, Key], reliability: float | None) -> str:
    return assess_consensus(conclusions, PROMPTS, truths=truths, split_half=reliability).level


def finding(audit: Audit) -> Finding:
    """What holds of an audit; `refuted`: it contradicts the fit, and the pool is right on fewer than half."""
    return {standing(audit)} | ({"refuted"} if audit.contradicts and 2 * audit.right < audit.n else set())


def shares(found: Sequence[Finding], kinds: Sequence[str] = (*STANDINGS, *LEVELS)) -> dict[str, object]:
    return {kind: f"{np.mean([kind in item for item in found]):.4f}" for kind in kinds}


def read_answers(path: Path) -> tuple[list[str], list[dict[str, Key | None]]]:
    """The right answers to all problems, and by problem the models' answers; None: no answer."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    answers = [{name: row[name] or None for name in row if name not in ("item", "gold")} for row in rows]
    return [row["gold"] for row in rows], answers


def pools_of(accuracy: Mapping[str, float]) -> dict[str, list[str]]:
    """Models by pool, as numbers of their accuracy on all problems and as makers."""
    order = sorted(accuracy, key=lambda name: accuracy[name])
    middle = (len(order) - POOL) // 2
    return {
        f"weakest {POOL}": order[:POOL],
        f"middle {POOL}": order[middle : middle + POOL],
        f"strongest {POOL}": order[-POOL:],
        "Llama": [name for name in order if "llama" in name.lower()],
        "Qwen": [name for name in order if "qwen" in name.lower()],
        "all": order,
    }


def rank(path: Path) -> Iterator[dict[str, object]]:
    """Mean Spearman with accuracy on all problems, for every pool of a benchmark."""
    gold, answers = read_answers(path)
    names = list(answers[0])
    accuracy = {m: float(np.mean([row[m] == g for row, g in zip(answers, gold, strict=True)])) for m in names}
    for pool, models in pools_of(accuracy).items():
        if len(models) < FEWEST_VARIANTS:
            continue
        scores = [ranked(gold, answers, models, seed) for seed in range(DRAWS)]
        true = [accuracy[m] for m in models]
        columns = {name: np.mean([agreement(score[name], true) for score, _ in scores]) for name in scores[0][0]}
        setting = {"part": "ranking", "benchmark": path.stem.removeprefix("answers_"), "pool": pool}
        range_ = {"models": len(models), "lowest": f"{min(true):.3f}", "highest": f"{max(true):.3f}", "draws": DRAWS}
        for n in (0, *TRUTHS, PROMPTS):
            audits = [found for _, by_labels in scores if (found := by_labels.get(n)) is not None]
            row = setting | range_ | {"labels": n, "with consensus": f"{columns[f'consensus {n}']:.3f}"}
            if n:
                row["alone"] = f"{columns[f'alone {n}']:.3f}"
                row |= {"right": f"{np.mean([a.right / a.n for a in audits]):.4f}",
                        "claimed": f"{np.mean([a.claimed for a in audits]):.4f}"}  # fmt: skip
                row |= shares([finding(a) for a in audits], STANDINGS)
            yield row


def ranked(gold: Sequence[str], answers: Sequence[Mapping[str, Key | None]], models: Sequence[str], seed: int):
    """Scores of the models on one draw of problems, by method and number of labels; and the audits by that number."""
    problems = np.random.default_rng(seed).choice(len(gold), PROMPTS, replace=False).tolist()
    conclusions = [{p: [answers[at][m]] for p, at in enumerate(problems)} for m in models]
    right = np.array([[answers[at][m] == gold[at] for at in problems] for m in models])
    without = readings(Votes(conclusions, PROMPTS)).fit
    scores, audits = {"consensus 0": without.by_prompt.mean(axis=1)}, {}
    for n in (*TRUTHS, PROMPTS):
        labelled = draw(PROMPTS, n, seed)
        truths = {p: gold[problems[p]] for p in labelled}
        scores[f"consensus {n}"] = readings(Votes(conclusions, PROMPTS, truths=truths)).fit.by_prompt.mean(axis=1)
        scores[f"alone {n}"] = right[:, labelled].mean(axis=1)
        audits[n] = audit_of(without, truths)
    return scores, audits


def agreement(score: np.ndarray, accuracy: Sequence[float]) -> float:
    """Spearman's correlation; 0 where the score is the same for all, since it then tells nothing."""
    from scipy.stats import spearmanr

    return float(spearmanr(score, accuracy).statistic) if np.ptp(score) > 1e-12 else 0.0


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "answers"
    rows: list[dict[str, object]] = []
    for path in sorted(folder.glob("answers_*.csv")):
        rows += rank(path)
    for part, settings in (("inverted", INVERTED), ("between", BETWEEN), ("holds", HOLDS)):
        for setting in settings:
            rows += simulate(part, *setting)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(HERE / "audit.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
