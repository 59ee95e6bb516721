"""The verdicts on whether NEX, or any measure without a verdict of its own, supports a ranking."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nex_merge.records import NexScore, Reliability, Verdict
from nex_merge.resampling import FEWEST_VARIANTS

# Below the first threshold, scores support no ranking (insufficient); below the second, only a coarse one (weak). From
# results/studies/does-nex-rank-merges.md and noise-ladder.md.
SPLIT_HALF = (0.5, 0.8)
CYCLES = (1.0, 2.0)  # a response with a single cycle earns no credit
CREDITED = (0.25, 0.5)  # share of responses
# Spearman with mean tokens from which the score adds little to response length.
FOLLOWS_LENGTH = 0.8
LONGER = (
    "longer responses (generation.max_new_tokens, prompts that need more reasoning), or shorter rows "
    "(activations.slice_tokens)"
)


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
            "more prompts, or longer responses",
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
        advice.append("a look at the responses, and accuracy for a few variants (benchmark, correlate)")
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


def assess_repeatability(split_half_reliability: float | None, silent: Sequence[str] = ()) -> Verdict:
    """Whether other prompts would rank the variants alike: all that is asked of a measure that makes no claim.

    `silent`: the ranked variants that mostly give empty responses. No ranking that has them among its own is sound.
    """
    verdict = _repeatability(split_half_reliability)
    if not silent:
        return verdict
    names = silent[0] if len(silent) == 1 else f"{', '.join(silent[:-1])} and {silent[-1]}"
    reason = f"it ranks what {names} {'gives' if len(silent) == 1 else 'give'} among answers: mostly empty responses"
    level = "weak" if verdict.level == "sound" else verdict.level
    return replace(verdict, level=level, reasons=(*verdict.reasons, reason))


def _repeatability(split_half_reliability: float | None) -> Verdict:
    figures = {"split_half": split_half_reliability}
    if split_half_reliability is None:
        reason = "too few variants, or too few differences between them, to estimate how reliable their ranking is"
        return Verdict("weak", (reason,), ("more merges (--trials)",), figures)
    reached = sum(split_half_reliability >= limit for limit in SPLIT_HALF)
    if reached == 2:
        return Verdict("sound", (), (), figures)
    word = ("hardly agree", "agree only roughly")[reached]
    reason = f"the rankings on two halves of the prompts {word} (split-half reliability {split_half_reliability:.2f})"
    return Verdict(("insufficient", "weak")[reached], (reason,), ("more prompts",), figures)
