"""The verdict on NEX: what in a pool's scores speaks for and against ranking by them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nex_merge.measures.advice import LABELS, LONGER, PROMPTS_OR_LONGER
from nex_merge.measures.measure import Grounds, Pool
from nex_merge.measures.repeatability import SPLIT_HALF
from nex_merge.records import NexScore, Reliability
from nex_merge.resampling import FEWEST_VARIANTS

# Below the first threshold, scores support no ranking (insufficient); below the second, only a coarse one (weak). From
# results/studies/does-nex-rank-merges.md and noise-ladder.md, as SPLIT_HALF is.
CYCLES = (1.0, 2.0)  # a response with a single cycle earns no credit
CREDITED = (0.25, 0.5)  # share of responses
# Spearman with mean tokens from which the score adds little to response length.
FOLLOWS_LENGTH = 0.8
UNCAPTURED = "no activations were captured"


def nex_reliability(pool: Pool, grounds: Grounds, name: str) -> Reliability:
    """The verdict on NEX with the figures that it rests on, without other measures. `name`: the measure's."""
    estimates = grounds.estimates
    complete = [v for v in pool.variants if v.complete and v.trial in pool.scores]
    baselines = [v for v in complete if v.kind != "merge"]
    teachers = baselines if pool.nex.calibration == "parents" else complete
    merges = [v.trial for v in complete if v.kind == "merge" and estimates[v.trial][name].value is not None]
    best = max(merges, key=lambda trial: estimates[trial][name].value or 0.0, default=None)
    found = assess(
        [pool.scores[v.trial] for v in complete],
        [estimates[v.trial]["mean_tokens"].value or 0.0 for v in complete],
        [pool.scores[v.trial] for v in teachers],
        len(pool.asked),
        grounds.split_half,
        estimates[best][name].beats_parent if best is not None else None,
    )
    return found if pool.scores else replace(found, verdict="insufficient", reasons=(UNCAPTURED,), advice=())


def assess(
    scores: Sequence[NexScore],
    mean_tokens: Sequence[float],
    teachers: Sequence[NexScore],
    prompts: int,
    split_half_reliability: float | None,
    beats_parent: float | None,
) -> Reliability:
    """Whether the scores of a run's variants support a ranking, with reasons and advice.

    `mean_tokens`: of the variants, in the same order. `teachers`: the scores of the variants whose credit the weights
    come from (all variants, or base and parents). `beats_parent`: confidence that the best merge beats base and
    every parent, corrected for its having been chosen among many merges; None if undefined.
    """
    cycles = float(np.median([s.cycles / max(s.responses, 1) for s in teachers])) if teachers else 0.0
    credited = float(np.median([s.credited / max(s.responses, 1) for s in teachers])) if teachers else 0.0
    saturations = [s.saturation for s in scores if s.saturation is not None]
    weighted = [s.weighted_mass for s in scores if s.weighted_mass is not None]
    findings = [
        (
            split_half_reliability,
            SPLIT_HALF,
            "the rankings on two halves of the prompts {} (split-half reliability {:.2f})",
            PROMPTS_OR_LONGER,
        ),
        (
            cycles,
            CYCLES,
            "responses have {} cycles to earn credit ({:.1f} on average; credit requires two)",
            LONGER,
        ),
        (
            credited,
            CREDITED,
            "{} responses earn credit at all ({:.0%})",
            LONGER,
        ),
    ]
    words = ({0: "hardly agree", 1: "agree only roughly"}, {0: "too few", 1: "few"}, {0: "hardly any", 1: "few"})
    level, reasons, advice = 2, [], []
    for (value, limits, text, cure), word in zip(findings, words, strict=True):
        if value is None:
            level = min(level, 1)
            reasons.append("too few variants to estimate how reliable their ranking is")
            continue
        reached = sum(value >= limit for limit in limits)
        if reached < 2:
            level = min(level, reached)
            reasons.append(text.format(word[reached], value))
            advice.append(cure)
    length = follows_length(scores, mean_tokens)
    if length is not None and abs(length) >= FOLLOWS_LENGTH:
        level = min(level, 1)
        order = "longer" if length > 0 else "shorter"
        reasons.append(
            f"the score ranks the variants by response length, {order} first (Spearman {abs(length):.2f} with mean "
            f"tokens), which agrees with accuracy only if {order} responses are more often right"
        )
        advice.append(LABELS)
    if beats_parent is not None and level == 2 and beats_parent < 0.95:
        reasons.append(f"the confidence that the best merge beats base and every parent is only {beats_parent:.0%}")
    return Reliability(
        verdict=("insufficient", "weak", "sound")[level],
        reasons=tuple(reasons),
        advice=tuple(dict.fromkeys(advice)),
        variants=len(scores),
        prompts=prompts,
        split_half=split_half_reliability,
        cycles_per_response=cycles,
        credited=credited,
        weighted_mass=float(np.median(weighted)) if weighted else None,
        saturation=float(np.median(saturations)) if saturations else None,
        beats_parent=beats_parent,
        follows_length=length,
    )


def follows_length(scores: Sequence[NexScore], mean_tokens: Sequence[float]) -> float | None:
    """Spearman's correlation of NEX with mean tokens over variants; None with fewer than five, or if all are equal."""
    from scipy.stats import spearmanr

    pairs = [(s.nex, tokens) for s, tokens in zip(scores, mean_tokens, strict=True) if s.nex is not None]
    if len(pairs) < FEWEST_VARIANTS or min(np.ptp(pairs, axis=0)) == 0:
        return None
    return float(spearmanr(*zip(*pairs, strict=True))[0])  # pyright: ignore[reportArgumentType]
