"""A ranking of answer files on a terminal and as JSON."""

from typing import Any

from nex_merge.answer_files.lm_eval import listed
from nex_merge.answer_files.ranking import RankedFiles
from nex_merge.measures.advice import (
    AUDIT,
    HIGHER_OR_MATCH,
    MORE_VARIANTS,
    OPEN_ENDED,
    OTHER_MATCH,
    SHOW_OPTIONS,
)
from nex_merge.measures.consensus_verdict import CONDITION
from nex_merge.terminal import console_of, echo
from nex_merge.wording import counted, decimal, wrapped

MEANS = {
    "sound": "Nothing in the answers speaks against this ranking.",
    "weak": "Something speaks against this ranking:",
    "insufficient": "These answers support no ranking:",
}


def ranking_json(ranked: RankedFiles) -> dict[str, Any]:
    """The ranking, best first, with its verdict and what it rests on."""
    rows = []
    for row in ranked.ranking.rows:
        item: dict[str, Any] = {"name": row.name, "consensus": row.consensus, "low": row.low, "high": row.high}
        item["answered"] = ranked.answered[row.name]
        item["concluded"] = ranked.concluded[row.name]
        if row.name in ranked.accuracy:
            item["accuracy"] = ranked.accuracy[row.name]
        rows.append(item)
    return {
        "rows": rows,
        "verdict": ranked.ranking.verdict,
        "reasons": [_of_models(reason) for reason in ranked.ranking.reasons],
        "verdict_by_task": dict(ranked.by_task),
        "advice": _advice(ranked),
        "match": ranked.match,
        "prompts": ranked.prompts,
        "shared_prompts": ranked.shared,
        "ranked_prompts": ranked.ranked,
        "labelled_prompts": ranked.labelled,
        "tasks": list(ranked.tasks),
        "notes": list(ranked.notes),
    }


def print_ranked(ranked: RankedFiles) -> None:
    """The ranking as a table, the verdict and its condition."""
    from rich.table import Table

    console, ranking = console_of(), ranked.ranking
    everywhere = "the samples of all models" if ranked.tasks else "all files"
    shared = "" if ranked.shared == ranked.ranked else f", {ranked.shared} of them in {everywhere}"
    asked = counted(ranked.ranked, "prompt")
    head = f"{counted(len(ranking.rows), 'model')} on {asked}{shared}; conclusions read as {ranked.match}"
    for line in (head, *(f"  {note}" for note in ranked.notes)):
        echo(wrapped(line, console.width))
    graded = bool(ranked.accuracy)
    missing = any(count < ranked.ranked for count in ranked.answered.values())
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("#", justify="right")
    table.add_column("model", overflow="fold")
    headings = ("consensus", "95 %", *(["answered"] if missing else []), "concluded")
    for heading in (*headings, *(["accuracy"] if ranked.accuracy else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    values = [row.consensus for row in ranking.rows]
    for row in ranking.rows:
        place = values.index(row.consensus) + 1  # equals share the first of their places
        interval = "-" if row.low is None else f"{row.low:.3f}-{row.high:.3f}"
        cells = [decimal(row.consensus), interval, *([f"{ranked.answered[row.name]}"] if missing else [])]
        cells += [f"{ranked.concluded[row.name]:.0%}"]
        cells += [decimal(ranked.accuracy.get(row.name))] if graded else []
        table.add_row("-" if row.consensus is None else str(place), row.name, *cells)
    console.print(table)
    lines = [
        "consensus: share of prompts on which a model concludes what all models together (the pool) conclude, each "
        "weighted by its estimated reliability, and no estimate of its accuracy; 95 %: interval of that, by bootstrap "
        "over prompts; concluded: share of the model's responses from which a conclusion could be read"
        + ("; accuracy: share of the known answers that it gives." if graded else "."),
        "",
        f"Verdict: {ranking.verdict}. {MEANS[ranking.verdict]}",
        *(f"  - {_of_models(reason)}" for reason in ranking.reasons),
        *(f"  What would help: {advice}" for advice in _advice(ranked)),
    ]
    if set(ranked.by_task.values()) - {ranking.verdict}:
        levels = {level: [t for t, own in ranked.by_task.items() if own == level] for level in MEANS}
        told = "; ".join(f"{level}: {listed(tasks)}" for level, tasks in levels.items() if tasks)
        lines.append(f"  That is on all tasks together. A ranking by one alone would be {told}.")
    if graded:
        lines.append(
            "  Known answers audit this verdict and never enter the ranking: the pool's conclusion is right on "
            f"{ranked.pool_right:,} of {counted(ranked.labelled, 'prompt')}."
        )
    if ranking.verdict != "insufficient" and ranked.labelled < ranked.ranked:
        lines.append(f"  {_of_models(CONDITION.removesuffix(' (audit)'))}.")
    for line in lines:
        echo(wrapped(line, console.width))


def _of_models(text: str) -> str:
    """What is said of a search's variants, in terms of models."""
    for word, instead in (("variant", "model"), ("the fit claims", "consensus itself claims")):
        text = text.replace(word, instead)
    return text


def _advice(ranked: RankedFiles) -> list[str]:
    """Advice in terms of files: there is no search to give more merges to, and no configuration."""
    answers = "tasks whose targets can be read as answers" if ranked.tasks else '"answer" in their lines'
    words = {
        AUDIT.text: f"right answers to a dozen prompts drawn at random ({answers}), which audit it",
        MORE_VARIANTS.text: "answers of more models",
        OPEN_ENDED.text: "prompts with short answers, another --match, or a benchmark",
        HIGHER_OR_MATCH.text: "longer responses, or another --match",
        OTHER_MATCH.text: "another --match",
        SHOW_OPTIONS.text: "prompts whose text shows their options, or another --match",
    }
    return [words.get(item, item) for item in ranked.ranking.advice]
