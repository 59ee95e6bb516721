"""A reading as HTML (a fragment to embed, or a page) and as JSON. Knows nothing of runs or models."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nex_merge.inert import visible
from nex_merge.inspect.reading import Reading, outcome

# Orange and blue are distinguishable for the colour-blind; the marks E and X repeat what the colours say. Everything is
# scoped to .reading, so that the fragment can be embedded in any page.
STYLE = (Path(__file__).parent / "reading.css").read_text(encoding="utf-8")


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("nex_merge", "inspect"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    environment.globals["outcome"] = outcome
    return environment


def render_fragment(reading: Reading) -> Markup:
    """A reading as an HTML <section>: text with phases, charts of novelty, and cycles. All text is escaped.

    A page that embeds it needs STYLE once in its head.
    """
    slopes = [row.slope for row in reading.rows if row.slope is not None]
    observations = [abs(row.observation) for row in reading.rows if row.observation is not None]
    return Markup(
        _templates()
        .get_template("reading.html.jinja")
        .render(reading=reading, highest=max(slopes, default=0.0), farthest=max(observations, default=0.0))
    )


def render_page(reading: Reading, title: str, facts: Sequence[str]) -> str:
    """A self-contained page of one reading; `facts` are lines of plain text above it."""
    template = _templates().get_template("page.html.jinja")
    return template.render(title=title, facts=facts, style=Markup(STYLE), fragment=render_fragment(reading))


def as_mapping(reading: Reading) -> dict[str, Any]:
    """A reading as plain data for JSON. Rows and tokens are numbered from 0; ends of spans are exclusive."""
    response = reading.response
    rows = [
        {
            "tokens": [row.first_token, row.end_token],
            "characters": [row.start, row.end],
            "text": reading.text(row),
            "phase": row.phase,
            "slope": row.slope,
            "observation": row.observation,
        }
        for row in reading.rows
    ]
    cycles = [
        {
            "explore_rows": list(reading.span(cycle.first_explore, cycle.last_explore)),  # inclusive
            "exploit_rows": list(reading.span(cycle.first_exploit, cycle.last_exploit)),
            "strength": cycle.strength,
            "reuse": cycle.reuse,
            "consolidation": cycle.consolidation,
            "credit": outcome(cycle),
            "effective": cycle.effective,
            "redundant": cycle.redundant,
        }
        for cycle in reading.cycles
    ]
    return {
        "prompt": reading.prompt,
        "text": response.text,
        "tokens": len(response.token_ids),
        "truncated": response.truncated,
        "score": reading.score,
        "no_phases": reading.why_no_phases,
        "fallback": reading.why_fallback,
        "rows": rows,
        "cycles": cycles,
    }
