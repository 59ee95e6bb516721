"""Which variants are cut at generation.max_new_tokens, whether they loop, and what to do about it."""

from collections.abc import Sequence
from pathlib import Path

from nex_merge.runs import files
from nex_merge.runs.rows import Row
from nex_merge.setup.paths import command
from nex_merge.wording import counted

# Share of a variant's responses that may be cut before it is said.
NOTED = 0.1
# A longer limit helps unless this share of the cut responses loop.
MOSTLY = 0.5


def cut_lines(rows: Sequence[Row], run: Path) -> list[str]:
    """A line on the members and merges that are cut in more than a tenth of their responses; none if there are none.

    A longer limit helps those that don't loop, and only those.
    """
    cut = [row for row in rows if (row.value("truncated") or 0.0) > NOTED]
    if not cut:
        return []
    looping = [row for row in cut if (row.value("looping") or 0.0) >= MOSTLY * row.known("truncated")]
    limit = files.read_yaml_mapping(run / files.CONFIG).get("generation", {}).get("max_new_tokens")
    what = "generation.max_new_tokens" if limit is None else f"generation.max_new_tokens ({limit:,})"
    said = f"Cut at {what} in more than a tenth of their responses: {_who(cut, rows)}."
    if len(looping) == len(cut):
        return [
            f"{said} They loop, which a higher limit won't end: look at what they repeat (responses.jsonl in "
            f"{run / files.TRIALS}), and whether prompts and chat template suit these models."
        ]
    loops = f"; {_who(looping, rows)} mostly loop, which it won't end" if looping else ""
    why = "If they don't loop" if any(row.value("looping") is None for row in cut) else "Most don't loop"
    higher = f"generation.max_new_tokens={'N' if limit is None else 2 * limit}"
    return [
        f"{said} {why}: raise the limit{loops}. --fresh sets this run aside; --out DIR instead leaves it as it "
        f"is: {command('search', run / files.CONFIG, '--set', higher, '--fresh')}"
    ]


def _who(cut: Sequence[Row], rows: Sequence[Row]) -> str:
    """Members by name with their shares, and how many of the merges."""
    members = [f"{row.trial} ({row.known('truncated'):.0%})" for row in cut if row.kind != "merge"]
    merges = sum(row.kind == "merge" for row in cut)
    total = sum(row.kind == "merge" and row.value("truncated") is not None for row in rows)
    told = [*members, *([f"{merges} of {counted(total, 'merge')}"] if merges else [])]
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"
