"""An audit of consensus: prompts drawn at random, what the pool concludes on them, and what labels say of it.

If most variants share one wrong answer, consensus ranks them upside down, and no answer shows it; labels do. Only
prompts drawn at random audit honestly. Knows nothing of terminals or of files of labels.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nex_merge.answers.conclusions import Key, read_gold
from nex_merge.errors import InputError
from nex_merge.measures.consensus_verdict import Audit, audit_of, why_undefined
from nex_merge.measures.dissent import is_defined
from nex_merge.measures.finishing import shares_of_endings
from nex_merge.measures.measure import Pool
from nex_merge.measures.registry import CONSENSUS
from nex_merge.measures.votes import FEWEST_VARIANTS
from nex_merge.records import Prompt, Verdict
from nex_merge.runs import files
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.questions import AuditLabels, read_labels, read_prompts, write_labels
from nex_merge.runs.rescore import rescore_run
from nex_merge.runs.results import read_reliability
from nex_merge.runs.rows import Row
from nex_merge.runs.run import RunFolder
from nex_merge.setup.options import with_options

# Options that are shown at once, a key of the keyboard for each.
PAGE = 9
# Ranks whose changes are told.
TOP = 5
CONTRADICTED, IN_LINE, TOO_FEW = "contradicted", "in line", "too few"


@dataclass(frozen=True)
class Option:
    """One of the conclusions to a prompt."""

    key: Key
    variants: int  # how many give it, in at least one response
    response: str  # the text of one such response


@dataclass(frozen=True)
class AuditOutcome:
    """What an audit found, and the leaderboard with its labels as known truths."""

    audit: Audit
    verdict: Verdict  # on consensus, with the labels
    rows: Sequence[Row]  # the leaderboard
    pick_before: str | None  # the best complete merge without these labels; None: no merge is complete
    pick_after: str | None
    changed: int  # of the first `top` ranks, how many have another variant than before
    top: int

    @property
    def standing(self) -> str:
        return standing(self.audit)


def open_pool(run: RunFolder) -> Pool:
    """The variants of a run, without an audit's labels.

    Raises InputError where there is nothing to audit: fewer than two variants, or hardly any conclusions in common.
    """
    pool = Pool(run.variants(), replace(run.rules(), questions=replace(run.questions(), truths={})))
    if len(pool.variants) < FEWEST_VARIANTS:
        raise InputError(
            f"{run.path}: expected at least two variants with responses, got {len(pool.variants)}. Audit the run once "
            "more of its trials are finished"
        )
    if not is_defined(pool.votes):
        reason, cure = why_undefined(shares_of_endings(pool), len(pool.questions.options), pool.prompts)
        raise InputError(
            f"{run.path}: there are no conclusions to audit: {reason} (conclusions are read as {pool.match}). What "
            f"would help: {cure.text}"
        )
    return pool


def earlier_labels(run: RunFolder, pool: Pool) -> AuditLabels:
    """The labels that the run has. Raises InputError if they were read in another way than the pool's conclusions."""
    labels = read_labels(run.path)
    if labels is None:
        return AuditLabels(pool.match, (), {})
    if labels.match != pool.match:
        raise InputError(
            f"{run.path / files.AUDIT}: expected labels read as {pool.match}, as the conclusions of the run are, got "
            f"{labels.match}. Remove the file, and run the audit again"
        )
    return labels


def draw(
    prompts: int, n: int, seed: int, drawn: Sequence[int] = (), concluded: Collection[int] | None = None
) -> list[int]:
    """The prompts to draw at random after those that are `drawn`, until n of all of them have a conclusion.

    `concluded`: the prompts, of 0 to `prompts` - 1, on which some variant concludes something; None: all. The order
    depends on the seed alone, so that a larger n goes on where a smaller one stopped.
    """
    have, further = sum(concluded is None or p in concluded for p in drawn), []
    for p in np.random.default_rng(seed).permutation(prompts).tolist():
        if have >= n:
            break
        if p not in drawn:
            further.append(p)
            have += concluded is None or p in concluded
    return further


def options(pool: Pool, prompt: int) -> list[Option]:
    """The conclusions to a prompt, those of most variants first."""
    found: dict[Key, list[int]] = {}  # by conclusion: the variants
    for v, by_prompt in enumerate(pool.conclusions):
        for key in dict.fromkeys(by_prompt.get(prompt, ())):
            if isinstance(key, Key):
                found.setdefault(key, []).append(v)
    ranked = sorted(found.items(), key=lambda item: -len(item[1]))  # ties stay in order of the variants
    return [Option(key, len(variants), _response(pool, variants[0], prompt, key)) for key, variants in ranked]


def _response(pool: Pool, v: int, prompt: int, key: Key) -> str:
    texts = [r.text for r in pool.variants[v].observation.responses if r.prompt == prompt]
    return texts[pool.conclusions[v][prompt].index(key)]


def pages(pool: Pool, prompt: int, seed: int) -> list[list[Option]]:
    """The conclusions to a prompt in random order, at most nine at a time.

    The first page has the pool's conclusion, at any place, and the most frequent others.
    """
    pooled = pool.fit.pooled[prompt]
    ordered = sorted(options(pool, prompt), key=lambda option: option.key != pooled)
    rng = np.random.default_rng([seed, prompt])
    parts = [ordered[at : at + PAGE] for at in range(0, len(ordered), PAGE)]
    return [[part[i] for i in rng.permutation(len(part))] for part in parts]


def truth_of(pool: Pool, prompt: int, answer: str) -> Key | None:
    """The right conclusion to a prompt, given its answer: the variants' key for it, where any of them is right.

    An empty answer means that none of their conclusions is right, and so does "none" where no response could conclude
    it. Raises ValueError, saying what to write instead, if the answer can't be read.
    """
    if not answer.strip():
        return None
    try:
        gold = read_gold(answer, pool.match, pool.questions.options.get(prompt))
    except ValueError:
        if answer.strip().lower() == "none":
            return None
        raise
    right = [option.key for option in options(pool, prompt) if gold.is_answered_by(option.response)]
    # Several spellings of one value may have keys of their own.
    pooled = pool.fit.pooled.get(prompt)
    return pooled if isinstance(pooled, Key) and pooled in right else next(iter(right), gold.key)


def containing(pool: Pool, prompt: int, truth: Key) -> Key | None:
    """A conclusion to a prompt that holds the right one as words; None if one equals it, or none holds it."""
    found = [option.key for option in options(pool, prompt)]
    if pool.match != "text" or truth in found:
        return None
    words = re.compile(rf"(?<!\w){re.escape(str(truth))}(?!\w)")
    return next((key for key in found if words.search(str(key))), None)


def conclude_audit(run: RunFolder, pool: Pool, labels: AuditLabels) -> AuditOutcome | None:
    """Keep the labels, and score the run with them as known truths; None if they say nothing of any conclusion.

    `pool`: as `open_pool` gives it. The caller holds the run's lock.
    """
    audit = audit_of(pool.fit, labels.by_prompt)
    if audit is None:
        return None
    before = read_rows(run)
    write_labels(run.path, labels)
    rows = rescore_run(run, run.scoring())
    if run.finalists is not None:  # the run that the final is in leads with its verdict
        whole = RunFolder(run.path.parent)
        rescore_run(whole, whole.scoring())
    reliability = read_reliability(run.path)
    verdict = None if reliability is None else reliability.of(CONSENSUS.name)
    assert verdict is not None, "rescored"
    top = [[row.trial for row in ranked if row.rank is not None][:TOP] for ranked in (before, rows)]
    changed = sum(one != other for one, other in zip(*top, strict=False))
    return AuditOutcome(audit, verdict, rows, _pick(before), _pick(rows), changed, min(map(len, top)))


def _pick(rows: Sequence[Row]) -> str | None:
    return next((row.trial for row in rows if row.kind == "merge" and row.state == "complete"), None)


def standing(audit: Audit) -> str:
    """`contradicted`, `in line` or `too few`: whether the labels bear out what the fit claimed.

    They are too few if they can't tell what it claimed from half of it.
    """
    if audit.contradicts:
        return CONTRADICTED
    return TOO_FEW if audit.interval()[0] <= audit.claimed / 2 else IN_LINE


def prompt_texts(run: RunFolder) -> list[str] | None:
    """What each prompt says, with options that were appended; None if they are no longer those the run began with."""
    prompts = read_prompts(run.resolved, run.config.prompts)
    return None if prompts is None else [_text(with_options(prompt, run.config.prompts)) for prompt in prompts]


def _text(prompt: Prompt) -> str:
    if prompt.raw is not None:
        return prompt.raw
    if len(prompt.messages) == 1:
        return prompt.messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt.messages)


def with_labels(labels: AuditLabels, new: Mapping[int, Key | None]) -> AuditLabels:
    """The labels and new ones, which replace those of the same prompts."""
    drawn = dict.fromkeys([*labels.drawn, *new])
    return AuditLabels(labels.match, tuple(drawn), {**labels.by_prompt, **new})
