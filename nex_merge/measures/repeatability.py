"""The verdict on any measure without one of its own: whether other prompts would rank the variants alike."""

from collections.abc import Sequence
from dataclasses import replace

from nex_merge.measures.advice import ANY_PROMPTS, MORE_VARIANTS
from nex_merge.records import Verdict

# Below the first threshold, scores support no ranking (insufficient); below the second, only a coarse one (weak). From
# results/studies/does-nex-rank-merges.md and noise-ladder.md.
SPLIT_HALF = (0.5, 0.8)


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
        return Verdict("weak", (reason,), (MORE_VARIANTS,), figures)
    reached = sum(split_half_reliability >= limit for limit in SPLIT_HALF)
    if reached == 2:
        return Verdict("sound", (), (), figures)
    word = ("hardly agree", "agree only roughly")[reached]
    reason = f"the rankings on two halves of the prompts {word} (split-half reliability {split_half_reliability:.2f})"
    return Verdict(("insufficient", "weak")[reached], (reason,), (ANY_PROMPTS,), figures)
