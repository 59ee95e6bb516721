"""The verdict on consensus: what in a pool's answers speaks for and against taking its conclusions for right ones.

Answers alone can't decide it: if most variants share one wrong answer, the very same answers mean the opposite ranking.
So `sound` means that nothing in the answers speaks against it. results/studies/ranking.md shows how often it says what.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nex_merge.measures.advice import (
    ANY_PROMPTS,
    AUDIT,
    HIGHER,
    HIGHER_OR_MATCH,
    LOOK,
    MORE_PROMPTS,
    MORE_VARIANTS,
    OPEN_ENDED,
    OTHER_MATCH,
    SHORT_ANSWERS,
    SHOW_OPTIONS,
    UNRACED,
)
from nex_merge.measures.dissent import dissent_figures, is_defined
from nex_merge.measures.finishing import Ending, shares_of_endings
from nex_merge.measures.measure import Grounds, Pool
from nex_merge.measures.readings import Readings, readings
from nex_merge.measures.votes import Conclusions, Fit, Key, Votes
from nex_merge.records import Advice, Verdict
from nex_merge.resampling import FEWEST_VARIANTS
from nex_merge.wording import counted

# Below the first limit a ranking is insufficient, below the second it is weak.
# A ranking of reliability r correlates with anything else, accuracy included, at most at the root of r: 0.5 and 0.8.
SPLIT_HALF = (0.25, 0.64)
TELLING = (8, 16)  # prompts on which some variants agree with the pool and others don't
VOTERS = (2.0, 3.0)  # in effect, if those that are alike are copies
FEWEST_VOTING = 4  # among three, one pair that agrees decides
# A ranking is insufficient if the variants are right on less than this by its own estimate, and rivals are frequent.
FEWEST_RIGHT, RIVALS = 1 / 3, 0.2
# A ranking is weak, then insufficient, from this product on: how often two who contradict the pool conclude the same,
# beyond chance, times the share of prompts on which a conclusion of theirs has comparable support.
CAMPS = (0.16, 0.04)
# It is weak, too, if two who contradict the pool conclude the same this often, unless they seldom do: variants that are
# right on nearly all prompts make their few mistakes on the same hard ones.
ONE_VOICE, NEARLY_ALL = 0.27, 0.85
# The pool's conclusions are right less often than claimed on pools of public models that are ranked well, too (by up to
# 0.19), so that an audit contradicts consensus only from here on below its claim. results/studies/audit.md has what
# false alarms are left; the value was set on the same answers.
TOLERANCE = 0.1
# Weak, then insufficient, from this share of the prompts on which the pool concludes something else than most variants
# do. It is at most 0.06 in the pools that are ranked well, and 0.25 in a pretrained family that is not; the limits were
# set on these, results/studies/ranking.md.
OVERRULED = (0.2, 0.1)
# A ranking is weak from this share of the prompts on which the pool would conclude something else if all variants that
# are alike were copies, unless the others' answers speak against that: unless variants predict those that are no kin of
# theirs that much better as it is. Set on simulated pools and public models: results/studies/copies.md.
TORN, CLEAR = 0.3, 0.06
# Labels tell what the answers don't: an audit of which the interval lies above this is on the pool's side.
SUPPORTED = 0.5
# Share of the prompts on which base and parents agree with one another and not with the pool, from so many prompts on.
CONTRADICTED, FEWEST_SHARED = (0.5, 0.25), 5
# A ranking is weak where merges that ended early leave out this share of all votes. Those that contradict the best are
# the ones that end, and dissent looks smaller: results/studies/search-efficiency.md has a race of which the verdict
# would have been sound and whose pick was bad.
UNHEARD = 0.1
# Words from which equal texts show copies rather than equal answers.
PROSE_WORDS = 30

CONDITION = (
    "Consensus holds if most variants don't share their mistakes. If most of them give one and the same wrong answer, "
    "the same answers mean the opposite ranking, which only labels can show (audit)"
)
UNDEFINED = (
    "hardly any two variants conclude the same on any prompt: the answers are open-ended, or don't end in a conclusion "
    "that can be read, so that there is nothing to agree on"
)
# Shares of the responses that are cut, and that are cut, loop or are empty, from which this is why there is nothing to
# agree on.
UNANSWERED, MOSTLY_UNANSWERED = 0.1, 0.5
# Why there is nothing to agree on where most prompts offer options, so that they are not open-ended.
NONE_NAMED = (
    "hardly any two variants conclude the same on any prompt: the prompts have options, and the responses name none "
    "that can be read, so that there is nothing to agree on"
)


@dataclass(frozen=True)
class Audit:
    """How often the pool's conclusion was right on n labelled prompts, and how often the fit claimed it is."""

    right: int
    n: int
    claimed: float  # mean posterior probability of the pool's conclusions to these prompts

    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the share that is right."""
        from scipy.stats import binomtest

        found = binomtest(self.right, self.n).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    @property
    def contradicts(self) -> bool:
        """Whether fewer are right than the fit claimed, beyond chance and the error of a good ranking."""
        return self.interval()[1] < self.claimed - TOLERANCE


def audit_of(fit: Fit, truths: Mapping[int, Key | None]) -> Audit | None:
    """The audit of a fit made without the truths. A prompt without any conclusion is left out."""
    labelled = [p for p in truths if p in fit.pooled]
    if not labelled:
        return None
    right = sum(fit.pooled[p] == truths[p] for p in labelled)
    return Audit(right, len(labelled), float(np.mean([fit.claimed[p] for p in labelled])))


def judge_consensus(pool: Pool, grounds: Grounds) -> Verdict:
    """The verdict on the consensus of a run's variants, with known truths as an audit."""
    variants, questions = pool.variants, pool.questions
    anchors = [i for i, variant in enumerate(variants) if variant.kind != "merge"]
    pruned = [len(item) for item, v in zip(pool.conclusions, variants, strict=True) if v.lost_to is not None]
    unheard = sum(1 - asked / len(pool.asked) for asked in pruned) / max(len(variants), 1)
    return assess_consensus(
        pool.conclusions, pool.prompts, questions.options, questions.truths, grounds.split_half, anchors,
        pool.match, unheard, shares_of_endings(pool), None if questions.truths else pool.readings,
    )  # fmt: skip


def assess_consensus(
    conclusions: Sequence[Conclusions],
    prompts: int,
    options: Mapping[int, int] | None = None,
    truths: Mapping[int, Key | None] | None = None,
    split_half: float | None = None,
    anchors: Sequence[int] = (),
    match: str = "",
    unheard: float = 0.0,
    endings: Mapping[Ending, float] | None = None,
    found: Readings | None = None,
) -> Verdict:
    """The verdict on the consensus of V variants over `prompts` prompts.

    `truths`: known right conclusions, which audit it. `split_half`: reliability of the ranking over halves of the
    prompts. `anchors`: indices of base and parents. `match`: how the conclusions were read, for the reasons.
    `unheard`: the share of all votes that is missing because merges ended early. `endings`: how all responses end, as
    shares; None: not known. `found`: who repeats whom, found without truths, if that is at hand.
    """
    found = found or readings(Votes(conclusions, prompts, options))
    votes, fit = found.votes, found.fit
    figures = dissent_figures(votes, fit, anchors) | {
        "copies": float(found.are_copies),
        "voters_if_copies": found.copies.fit.voters,
    }
    figures["torn"], figures["torn_lead"] = found.torn()
    audit = audit_of(fit, truths or {})
    # Those that conclude the same throughout add none: with copies, a ranking would seem to rest on more variants.
    distinct = round(float((1 / votes.same().sum(axis=1)).sum()))
    figures |= {"split_half": split_half, "variants": len(conclusions), "distinct": distinct, "unheard": unheard}
    if audit is not None:
        low, high = audit.interval()
        figures |= {"audit_right": audit.right, "audit_n": audit.n, "audit_low": low, "audit_high": high,
                    "audit_claimed": audit.claimed}  # fmt: skip
    figures["defined"] = float(is_defined(votes))
    if not figures["defined"]:
        reason, cure = why_undefined(endings, len(options or {}), prompts)
        return Verdict("insufficient", (reason,), (cure,), figures)
    level, reasons, advice = 2, [], []
    findings = (*_audited(audit), *_findings(figures), *_conclusions(conclusions, match, endings or {}))
    for at, reason, cure in sorted(findings, key=lambda finding: finding[0]):  # the gravest first
        level = min(level, at)
        reasons.append(reason)
        advice += [cure] if cure is not None else []
    if audit is None and level < 2:
        advice.append(AUDIT)
    return Verdict(("insufficient", "weak", "sound")[level], tuple(reasons), tuple(dict.fromkeys(advice)), figures)


def why_undefined(
    endings: Mapping[Ending, float] | None = None, offering: int = 0, prompts: int = 0
) -> tuple[str, Advice]:
    """Why there is nothing to agree on, and what would help. Answers that are cut or empty are not open-ended.

    `offering`: so many of the prompts offer options, and their answers are not open-ended either.
    """
    shares = {ending: (endings or {}).get(ending, 0.0) for ending in (Ending.CUT, Ending.LOOPS, Ending.EMPTY)}
    told = ", ".join(f"{share:.0%} {ending.value}" for ending, share in shares.items() if share >= 0.005)
    if shares[Ending.CUT] <= UNANSWERED and sum(shares.values()) < MOSTLY_UNANSWERED:
        reason, cure = (NONE_NAMED, SHOW_OPTIONS) if 2 * offering > prompts else (UNDEFINED, OPEN_ENDED)
        return reason + (f" ({told})" if told else ""), cure
    reason = f"hardly any two variants conclude the same on any prompt: of all responses, {told}"
    return reason, HIGHER if max(shares, key=shares.__getitem__) is Ending.CUT else LOOK


Finding = tuple[int, str, Advice | None]  # level, reason, advice


def _findings(figures: Mapping[str, float | None]) -> list[Finding]:
    return [*_noise(figures), *_camps(figures), *_anchors(figures), *_unheard(figures)]


def _noise(figures: Mapping[str, float | None]) -> list[Finding]:
    """Too little to tell the variants apart by."""
    found = []
    telling, voters, halves = figures["telling"] or 0, figures["voters_if_copies"], figures["split_half"]
    if telling < TELLING[1]:
        verb = "tells" if telling == 1 else "tell"
        reason = (
            f"only {counted(int(telling), 'prompt')} {verb} the variants apart; on the others all agree, or none does"
        )
        found.append((int(telling >= TELLING[0]), reason, MORE_PROMPTS))
    count = int(figures["distinct"] or 0)
    again = int(figures["variants"] or 0) - count
    alike = f", as {again} {'concludes' if again == 1 else 'conclude'} the same as another throughout" if again else ""
    if count < FEWEST_VOTING:
        verb = "votes" if count == 1 else "vote"
        reason = f"only {counted(count, 'variant')} {verb}{alike}: two that agree outvote the rest"
        found.append((0, reason, MORE_VARIANTS))
    elif voters is not None and voters < VOTERS[1]:
        reason = f"the variants vote like {voters:.1f} independent ones"
        found.append((int(voters >= VOTERS[0]), reason, MORE_VARIANTS))
    if count >= FEWEST_VOTING and (halves is None or count < FEWEST_VARIANTS):
        reason = f"too few variants to estimate how reliable their ranking is{alike}"
        found.append((1, reason, MORE_VARIANTS))
    elif halves is not None and halves < SPLIT_HALF[1]:
        word = "hardly agree" if halves < SPLIT_HALF[0] else "agree only roughly"
        reason = f"the rankings on two halves of the prompts {word} (split-half reliability {halves:.2f})"
        found.append((int(halves >= SPLIT_HALF[0]), reason, ANY_PROMPTS))
    return found


def _camps(figures: Mapping[str, float | None]) -> list[Finding]:
    """Signs that mistakes are shared: rival conclusions with as much support."""
    found = []
    accuracy, rivals = figures["pool_accuracy"] or 0.0, figures["rivals"] or 0.0
    concentration = figures["concentration"] or 0.0
    if accuracy < FEWEST_RIGHT and rivals >= RIVALS:
        reason = (
            f"by its own estimate the variants are mostly wrong ({accuracy:.0%} right on average), and on {rivals:.0%} "
            "of the prompts another conclusion has comparable support"
        )
        found.append((0, reason, None))
    agreeing = f"variants that contradict the pool conclude the same as one another in {concentration:.0%} of the cases"
    if concentration * rivals >= CAMPS[1]:
        reason = (
            f"there are two camps: {agreeing}, and on {rivals:.0%} of the prompts their conclusion has comparable "
            "support; either camp may be right"
        )
        found.append((int(concentration * rivals < CAMPS[0]), reason, None))
    elif concentration >= ONE_VOICE and accuracy < NEARLY_ALL:
        found.append((1, f"{agreeing}: mistakes are shared, theirs or the pool's", None))
    torn, lead = figures["torn"] or 0.0, figures["torn_lead"] or 0.0
    if torn >= TORN and lead < CLEAR and (figures.get("audit_low") or 0.0) < SUPPORTED:
        reason = (
            "it hangs on whether variants that are alike are right or copies of one another: if copies, the pool would "
            f"conclude something else on {torn:.0%} of the prompts, and the others' answers hardly tell"
        )
        found.append((1, reason, None))
    if (overruled := figures["overruled"] or 0.0) >= OVERRULED[1]:
        reason = (
            f"on {overruled:.0%} of the prompts a few variants that are taken for reliable outvote a larger number "
            "that agree: the ranking hangs on who is taken for reliable"
        )
        found.append((int(overruled < OVERRULED[0]), reason, None))
    return found


def _anchors(figures: Mapping[str, float | None]) -> list[Finding]:
    against, shared = figures["anchors_contradict"], figures["anchors_agree"] or 0
    if against is None or shared < FEWEST_SHARED or against < CONTRADICTED[1]:
        return []
    reason = (
        f"on {against:.0%} of the {counted(int(shared), 'prompt')} on which base and parents agree with one another, "
        "the pool concludes something else"
    )
    return [(int(against < CONTRADICTED[0]), reason, None)]


def _unheard(figures: Mapping[str, float | None]) -> list[Finding]:
    missing = figures["unheard"] or 0.0
    if missing < UNHEARD:
        return []
    reason = (
        f"{missing:.0%} of the votes are missing, as merges that contradict the best ended early: mistakes that the "
        "others share would go unnoticed"
    )
    return [(1, reason, UNRACED)]


def _conclusions(conclusions: Sequence[Conclusions], match: str, endings: Mapping[Ending, float]) -> list[Finding]:
    """Findings about what was read from the responses."""
    keys = [key for by_prompt in conclusions for answers in by_prompt.values() for key in answers]
    read = [key for key in keys if key is not None]
    found: list[Finding] = []
    if 2 * len(read) < len(keys):
        shares = {ending: endings.get(ending, 0.0) for ending in Ending if ending is not Ending.FINISHED}
        told = ", ".join(f"{share:.0%} {ending.value}" for ending, share in shares.items() if share >= 0.005)
        why = f"of all, {told}" if told else "the others are cut off, or nothing could be read from them"
        cures = {Ending.CUT: HIGHER, Ending.INCONCLUSIVE: OTHER_MATCH}
        cure = cures.get(max(shares, key=shares.__getitem__), LOOK) if told else HIGHER_OR_MATCH
        found.append((1, f"only {len(read) / len(keys):.0%} of the responses conclude anything; {why}", cure))
    if match == "text" and read and np.median([len(str(key).split()) for key in read]) >= PROSE_WORDS:
        reason = (
            f"whole texts of {PROSE_WORDS} words and more are compared: agreement word for word shows copies of one "
            "model rather than right answers"
        )
        found.append((1, reason, SHORT_ANSWERS))
    return found


def _audited(audit: Audit | None) -> list[Finding]:
    if audit is None or not audit.contradicts:
        return []
    low, high = audit.interval()
    reason = (
        f"an audit contradicts it: the pool's conclusion is right on {audit.right} of "
        f"{counted(audit.n, 'labelled prompt')} (95 % interval {low:.0%} to {high:.0%}), where the fit claims "
        f"{audit.claimed:.0%}"
    )
    # Right on half of them: the values are too high, the order may still hold.
    return [(int(2 * audit.right >= audit.n), reason, None)]
