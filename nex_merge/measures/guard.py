"""Detects collapsed merges: they finish far fewer responses than the fine-tunes, say nothing, or their text is garbled.

Degenerate text can game a label-free score: a loop recruits and reuses neurons as well as reasoning does.
"""

from dataclasses import dataclass

import numpy as np

from nex_merge.measures.finishing import Ending, endings_of
from nex_merge.measures.measure import Pool
from nex_merge.measures.text import text_figures

# How much worse (absolute difference) than the worst of the references a merge may be.
# results/studies/does-nex-rank-merges.md shows what this catches and misses.
ALLOWANCE = 0.25  # of `finished`; of empty responses whatever the references are, as no parent excuses silence
NON_TEXT_ALLOWANCE = 0.02  # of `non_text`: garbled text may end by itself
# A base counts as a reference if it finishes at least this much. A pretrained base that was never taught to stop says
# nothing about what a merge of fine-tunes may do, and as the worst reference it would excuse everything.
BASE_FINISHES = 0.5
# What a study calls the constraint that merges do not collapse; other constraints have the names of measures.
COLLAPSE = "collapse"
_ADVICE = {
    Ending.CUT: "raise generation.max_new_tokens",
    Ending.INCONCLUSIVE: "check how conclusions are read, consensus.match",
}


@dataclass(frozen=True)
class _Health:
    """What the guard looks at, of one variant or of faultless text."""

    name: str
    endings: tuple[Ending, ...] = (Ending.FINISHED,)
    non_text: float = 0.0

    def share(self, ending: Ending) -> float:
        return self.endings.count(ending) / len(self.endings)

    @property
    def finished(self) -> float:
        return self.share(Ending.FINISHED)

    @property
    def obstacle(self) -> Ending:
        """The most frequent reason not to finish."""
        return max((ending for ending in Ending if ending is not Ending.FINISHED), key=self.share)


def collapse(pool: Pool) -> tuple[float, str | None]:
    """(violation, reason or None) of a pool's last variant, a merge, held against the fine-tunes of the pool.

    The reference is the worst of the fine-tunes, and of base where it finishes half of its responses; without any,
    faultless text, which is the reference for empty responses in any case. The violation is the largest excess over an
    allowance, as a multiple of the allowance; above 0, the merge has collapsed.
    """
    merge, references = _health(pool, len(pool.variants) - 1), _references(pool)
    faultless = _Health("faultless text")
    least = min(references, key=lambda item: item.finished, default=faultless)
    worst = max(references, key=lambda item: item.non_text, default=faultless)
    unfinished = (
        f"finishes {_percent(merge.finished)} of its responses, {least.name} {_percent(least.finished)}; "
        f"{_percent(merge.share(merge.obstacle))} {merge.obstacle.value}"
    )
    garbled = f"{_percent(merge.non_text)} of its characters are no text, {worst.name} {_percent(worst.non_text)}"
    empty = merge.share(Ending.EMPTY)
    violation, reason = max(
        ((least.finished - merge.finished) / ALLOWANCE - 1, unfinished),
        ((merge.non_text - worst.non_text) / NON_TEXT_ALLOWANCE - 1, garbled),
        (empty / ALLOWANCE - 1, f"{_percent(empty)} of its responses are empty"),
        key=lambda item: item[0],
    )
    return violation, reason if violation > 0 else None


def blind_spot(pool: Pool) -> str | None:
    """Why no merge could finish too little to be noticed, and what to do; None if one could."""
    least = min(_references(pool), key=lambda item: item.finished, default=None)
    if least is None or least.finished > ALLOWANCE:
        return None
    obstacle = least.obstacle
    advice = f"; {_ADVICE[obstacle]}" if obstacle in _ADVICE else ""
    return (
        f"{least.name} finishes {_percent(least.finished)} of its responses "
        f"({_percent(least.share(obstacle))} {obstacle.value}), so a merge that collapsed can't be told from it{advice}"
    )


def _references(pool: Pool) -> list[_Health]:
    """The health of the fine-tunes, and of base where it finishes its responses."""
    found = [_health(pool, i) for i, variant in enumerate(pool.variants) if variant.kind != "merge"]
    return [item for item in found if item.name != "base" or item.finished >= BASE_FINISHES]


def _health(pool: Pool, index: int) -> _Health:
    variant = pool.variants[index]
    text = variant.observation.text or text_figures(variant.observation.responses)
    name = {"base": "base", "parent": "the worst fine-tune"}.get(variant.kind, "")
    return _Health(name, tuple(endings_of(pool, index)), float(np.mean(text.non_text)))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
