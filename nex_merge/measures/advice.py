"""All advice that verdicts give: what would help, and what follows from it. Files keep the texts alone."""

from collections.abc import Mapping

from nex_merge.records import Action, Advice

AUDIT = Advice("audit", Action.AUDIT, "check a dozen answers yourself")
MORE_VARIANTS = Advice("more merges (--trials)", Action.MORE_MERGES, "more merges")
UNRACED = Advice("the same search without racing", Action.WITHOUT_RACING)
ANY_PROMPTS = Advice("more prompts", Action.MORE_PROMPTS)
MORE_PROMPTS = Advice("more prompts, or harder ones", Action.MORE_PROMPTS)
PROMPTS_OR_LONGER = Advice("more prompts, or longer responses", Action.MORE_PROMPTS)
LONGER = Advice(
    "longer responses (generation.max_new_tokens, prompts that need more reasoning), or shorter rows "
    "(activations.slice_tokens)",
    Action.HIGHER_LIMIT,
)
HIGHER = Advice("a higher generation.max_new_tokens", Action.HIGHER_LIMIT)
HIGHER_OR_MATCH = Advice(f"{HIGHER.text}, or another consensus.match", Action.HIGHER_LIMIT)
OTHER_MATCH = Advice("another consensus.match")
SHORT_ANSWERS = Advice("prompts with short answers", Action.OTHER_PROMPTS)
OPEN_ENDED = Advice(
    "prompts with short answers, or another consensus.match; else the merge with equal weights, which needs no choice, "
    "or a benchmark",
    Action.OTHER_PROMPTS,
    "prompts with short answers, or another consensus.match",
)
SHOW_OPTIONS = Advice(
    "prompts whose text shows their options (prompts.options=appended), or another consensus.match",
    Action.SHOW_OPTIONS,
)
LOOK = Advice("a look at the responses, and whether prompts and chat template suit these models")
LABELS = Advice("a look at the responses, and accuracy for a few variants (benchmark, correlate)", Action.BENCHMARK)

_KNOWN: Mapping[str, Advice] = {
    advice.text: advice
    for advice in (
        AUDIT,
        MORE_VARIANTS,
        UNRACED,
        ANY_PROMPTS,
        MORE_PROMPTS,
        PROMPTS_OR_LONGER,
        LONGER,
        HIGHER,
        HIGHER_OR_MATCH,
        OTHER_MATCH,
        SHORT_ANSWERS,
        OPEN_ENDED,
        SHOW_OPTIONS,
        LOOK,
        LABELS,
    )
}


def advice_of(text: str) -> Advice:
    """The advice with this text, as files have it; nothing follows from one that only another version gives."""
    return _KNOWN.get(text, Advice(text))
