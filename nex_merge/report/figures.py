"""Leaderboard rows -> Plotly figures. The only module that imports Plotly; knows no statistics.

Colours are CSS variables (`var(--merge)`), which the page resolves for its light or dark theme.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from nex_merge.measures.estimates import Objective
from nex_merge.measures.registry import MEASURES, measure_title
from nex_merge.report.data import number
from nex_merge.report.work import Work
from nex_merge.runs.files import trial_label
from nex_merge.runs.front import Volume
from nex_merge.runs.rows import Row, parameters_of

Figure = go.Figure  # as others name it
# Groups differ in shape as well as in colour.
GROUPS = {
    "merge": ("merges", "circle", 8),
    "duplicate": ("duplicates", "circle-open", 8),
    "infeasible": ("infeasible merges", "triangle-down-open", 8),
    "collapsed": ("collapsed merges", "x-thin-open", 8),
    "base": ("base", "square", 9),
    "parent": ("parents", "diamond", 10),
    "pick": ("pick", "star", 14),
}
# What a worker does, as colour and pattern.
_DOING = {
    "idle": ("var(--grid)", ""), "merge": ("var(--parent)", ""), "generate": ("var(--merge)", ""),
    "capture": ("var(--best)", ""), "score": ("var(--duplicate)", ""),
    "lost": ("var(--collapsed)", "x"), "stopped": ("var(--base)", "/"),
}  # fmt: skip
_DASHES = ("dash", "dot", "dashdot", "longdash", "longdashdot")
_AXIS_WIDTH = 110  # pixels, in the parallel coordinates


def script() -> str:
    """The source of plotly.js."""
    return get_plotlyjs()


def figure_json(figure: go.Figure) -> dict[str, Any]:
    return json.loads(figure.to_json())  # pyright: ignore[reportArgumentType]


def in_light_colours(figure: go.Figure) -> go.Figure:
    """A figure for where there is no page around it: with the colours of the page's light theme."""
    css = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    light = re.search(r"^:root \{(.*?)^\}", css, re.MULTILINE | re.DOTALL)
    assert light is not None
    colours = dict(re.findall(r"--([\w-]+): ([^;]+);", light[1]))
    text = re.sub(r"var\(--([\w-]+)\)", lambda match: colours[match[1]], str(figure.to_json()))
    return plotly.io.from_json(text)


def _figure(x: str, y: str, height: int = 420) -> go.Figure:
    grid = {"gridcolor": "var(--grid)", "linecolor": "var(--line)", "zerolinecolor": "var(--grid)", "automargin": True}
    return go.Figure(
        layout={
            "template": "none", "height": height, "paper_bgcolor": "var(--panel)", "plot_bgcolor": "var(--panel)",
            "font": {"color": "var(--text)", "size": 13}, "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
            "xaxis": {"title": {"text": _plain(x)}, **grid}, "yaxis": {"title": {"text": _plain(y)}, **grid},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
            "hoverlabel": {"bgcolor": "var(--panel)", "bordercolor": "var(--line)", "font": {"color": "var(--text)"}},
        }
    )  # fmt: skip


def _plain(text: str) -> str:
    # Plotly renders text as HTML.
    return html.escape(text, quote=False)


def _axis_title(name: str) -> str:
    """A measure with its unit, unless the name has it."""
    unit = MEASURES[name].unit if name in MEASURES else ""
    title = measure_title(name)
    return f"{title} ({unit})" if unit and unit not in title else title


def group_of(row: Row, pick: Row | None) -> str:
    if pick is not None and row.trial == pick.trial:
        return "pick"
    if row.state in ("duplicate", "infeasible", "collapsed"):
        return row.state
    return row.kind


def _error_bars(rows: Sequence[Row], name: str, colour: str) -> dict[str, Any] | None:
    """The intervals of a column; None if the leaderboard has none."""
    if not any(row.column(f"{name}_low") is not None for row in rows):
        return None
    ends = [(row.column(f"{name}_low"), row.column(name), row.column(f"{name}_high")) for row in rows]
    # A percentile interval need not contain the value.
    below = [0 if low is None else max(value - low, 0) for low, value, _ in ends]
    above = [0 if high is None else max(high - value, 0) for _, value, high in ends]
    return {"type": "data", "array": above, "arrayminus": below, "color": colour, "thickness": 0.8, "width": 0}


def _points(figure: go.Figure, rows: Sequence[Row], x: str, y: str, pick: Row | None) -> None:
    hover = f"%{{text}}<br>{measure_title(x)} %{{x:.4~g}}<br>{measure_title(y)} %{{y:.4~g}}<extra></extra>"
    for group, (label, symbol, size) in GROUPS.items():
        part = [row for row in rows if group_of(row, pick) == group]
        if not part:
            continue
        colour = f"var(--{group})"
        trace = go.Scatter(
            x=[_trial_number(row) if x == "trial" else row.column(x) for row in part],
            y=[row.column(y) for row in part], mode="markers", name=label,
            text=[_plain(f"trial {trial_label(row.trial)}, {row.method}") for row in part],
            hovertemplate=hover,
            marker={"symbol": symbol, "size": size, "color": colour, "line": {"width": 2 if "open" in symbol else 0}},
            error_x=_error_bars(part, x, colour), error_y=_error_bars(part, y, colour),
        )  # fmt: skip
        figure.add_trace(trace)


def _trial_number(row: Row) -> int:
    return int(row.trial)


def history(rows: Sequence[Row], objective: Objective, pick: Row | None) -> go.Figure | None:
    """The objective of every merge by trial number, the best complete one so far, base and parents.

    None if no merge has a value.
    """
    name = objective.name
    merges = sorted((row for row in rows if row.kind == "merge" and row.value(name) is not None), key=_trial_number)
    if not merges:
        return None
    figure = _figure("trial", _axis_title(name))
    ends = [-0.5, max(_trial_number(row) for row in merges) + 0.5]
    dashes = iter(_DASHES * len(rows))
    for row in (row for kind in ("base", "parent") for row in rows if row.kind == kind and row.value(name) is not None):
        figure.add_trace(
            go.Scatter(
                x=ends, y=[row.value(name)] * 2, mode="lines", name=_plain(row.trial),
                line={"color": f"var(--{row.kind})", "width": 2, "dash": next(dashes)},
                hovertemplate=f"{_plain(row.trial)} %{{y:.4~g}}<extra></extra>",
            )
        )  # fmt: skip
    complete = [row for row in merges if row.state == "complete"]
    if complete:
        best = [*accumulate((row.known(name) for row in complete), max if objective.sign > 0 else min)]
        figure.add_trace(
            go.Scatter(
                x=[_trial_number(row) for row in complete] + ends[1:], y=[*best, best[-1]],
                mode="lines", name="best so far",
                line={"color": "var(--best)", "width": 2, "shape": "hv"}, hoverinfo="skip",
            )
        )  # fmt: skip
    _points(figure, merges, "trial", name, pick)
    figure.update_xaxes(range=[ends[0] - 0.5, ends[1] + 0.5], dtick=1 if ends[1] < 12 else None)
    return figure


def scatter(rows: Sequence[Row], x: str, y: str, pick: Row | None) -> go.Figure | None:
    """Column y of the ranked variants over column x; None if no variant has both."""
    known = [row for row in rows if row.rank is not None and row.column(x) is not None and row.column(y) is not None]
    if not known:
        return None
    figure = _figure(_axis_title(x), _axis_title(y))
    _points(figure, known, x, y, pick)
    return figure


def pareto(rows: Sequence[Row], front: Sequence[Row], pick: Row | None, name: str) -> go.Figure | None:
    """Measure `name` over mean tokens, with the front (see `report.data.front`) as steps."""
    figure = scatter(rows, "mean_tokens", name, pick)
    if figure is None or not front:
        return figure
    line = go.Scatter(
        x=[row.value("mean_tokens") for row in front], y=[row.value(name) for row in front],
        mode="lines", name="Pareto front",
        line={"color": "var(--best)", "width": 2, "shape": "hv"}, hoverinfo="skip",
    )  # fmt: skip
    figure.add_trace(line)
    figure.data = (figure.data[-1], *figure.data[:-1])
    return figure


def objectives(rows: Sequence[Row], objective: Objective, front: Sequence[Row], pick: Row | None) -> go.Figure | None:
    """The first objective over the second, with the merges of the first front ringed, and base and parents by name.

    The line is the edge of what the front dominates; with three objectives, it has none in two dimensions.
    """
    x, y = objective.others[0], objective
    figure = scatter(rows, x.name, y.name, pick)
    if figure is None:
        return None
    ordered = sorted(front, key=lambda row: (-x.sign * row.known(x.name), y.sign * row.known(y.name)))
    ring = go.Scatter(
        x=[row.value(x.name) for row in ordered], y=[row.value(y.name) for row in ordered],
        name="front", hoverinfo="skip",
        mode="markers" if len(objective.all) > 2 else "lines+markers",
        line={"color": "var(--best)", "width": 2, "shape": "hv"},
        marker={"symbol": "circle-open", "size": 18, "color": "var(--best)", "line": {"width": 2}},
    )  # fmt: skip
    figure.add_trace(ring)
    figure.data = (figure.data[-1], *figure.data[:-1])
    for row in rows:
        at = row.value(x.name), row.value(y.name)
        if row.kind != "merge" and None not in at:
            figure.add_annotation(x=at[0], y=at[1], text=_plain(row.trial), showarrow=False, yshift=16)
    return figure


def volume(found: Volume) -> go.Figure:
    """The hypervolume of the merges by trial number, and that of base and parents."""
    figure, trials = _figure("trial", "hypervolume", 320), [int(trial) for trial in found.trials]
    ends = [-0.5, max(trials) + 0.5]
    for name, x, y, line in (
        ("base and parents", ends, [found.baselines] * 2, {"color": "var(--base)", "width": 2, "dash": "dash"}),
        ("merges", trials + ends[1:], [*found.values, found.values[-1]],
         {"color": "var(--best)", "width": 2, "shape": "hv"}),
    ):  # fmt: skip
        hover = f"{name} %{{y:.4~g}}<extra></extra>"
        figure.add_trace(go.Scatter(x=x, y=y, mode="lines", name=name, line=line, hovertemplate=hover))
    figure.update_xaxes(range=[ends[0] - 0.5, ends[1] + 0.5], dtick=1 if ends[1] < 12 else None)
    figure.update_yaxes(rangemode="tozero")
    return figure


def importance_bars(shares: Mapping[str, float]) -> go.Figure:
    """Importances of parameters, greatest on top."""
    names = list(shares)[::-1]
    figure = _figure("share of variance", "", 110 + 28 * len(names))
    trace = go.Bar(
        x=[shares[name] for name in names], y=[_plain(name) for name in names], orientation="h",
        marker={"color": "var(--merge)"}, hovertemplate="%{y} %{x:.3f}<extra></extra>",
    )  # fmt: skip
    figure.add_trace(trace)
    figure.update_xaxes(rangemode="tozero")
    return figure


def work(found: Work) -> go.Figure:
    """A lane for each worker: when it was there, and over that what it did."""
    scale, unit = (1, "s") if found.ends[-1] < 300 else (60, "min") if found.ends[-1] < 18_000 else (3600, "h")
    figure = _figure(f"time ({unit})", "", 150 + 30 * len(found.lanes))
    for doing, (colour, shape) in _DOING.items():
        if bars := found.bars(doing):
            figure.add_bar(
                y=[bar.lane for bar in bars], base=[bar.since / scale for bar in bars], width=0.8, orientation="h",
                x=[bar.seconds / scale for bar in bars], text=[_plain(bar.label) for bar in bars], textangle=0,
                textposition="inside", insidetextanchor="middle", textfont={"color": "var(--panel)"}, name=doing,
                hovertext=[_plain(bar.said) for bar in bars], hovertemplate="%{hovertext}<extra></extra>",
                marker={"color": colour, "pattern": {"shape": shape, "fgcolor": "var(--panel)", "fillmode": "overlay"}},
            )  # fmt: skip
    for end in found.ends[:-1]:
        figure.add_vline(end / scale, line={"color": "var(--line)", "dash": "dash", "width": 1})
    figure.update_xaxes(range=[0, found.ends[-1] / scale])
    names = dict(enumerate(_plain(lane.name) for lane in found.lanes))
    figure.update_yaxes(tickvals=[*names], ticktext=[*names.values()], autorange="reversed", showgrid=False)
    return figure.update_layout(barmode="overlay", uniformtext={"minsize": 9, "mode": "hide"})


def parallel(rows: Sequence[Row], objective: Objective) -> tuple[go.Figure, int] | None:
    """Parallel coordinates: the searched parameters and the objective of the ranked merges; and the width in pixels.

    None for fewer than two merges.
    """
    name = objective.name
    merges = [row for row in rows if row.kind == "merge" and row.rank is not None and row.value(name) is not None]
    parameters = parameters_of(merges)
    if len(merges) < 2 or not parameters:
        return None
    axes = [_axis(name, [row.parameters.get(name) for row in merges]) for name in parameters]
    values = [row.known(name) for row in merges]
    scale = [[0, "var(--worst-line)"], [1, "var(--best-line)"]]
    figure = _figure("", "", 440)
    trace = go.Parcoords(
        dimensions=[*axes, _axis(measure_title(name), values)],
        line={"color": values, "colorscale": scale, "reversescale": objective.sign < 0},
        labelfont={"color": "var(--text)", "size": 12}, tickfont={"color": "var(--text)", "size": 11},
        rangefont={"color": "var(--text)", "size": 11}, unselected={"line": {"color": "var(--grid)", "opacity": 0.4}},
        labelangle=-20, labelside="bottom",
    )  # fmt: skip
    figure.add_trace(trace)
    figure.update_layout(margin={"l": 60, "r": 60, "t": 28, "b": 90})
    return figure, _AXIS_WIDTH * (len(axes) + 1)


def _axis(label: str, values: Sequence[Any]) -> dict[str, Any]:
    """A dimension of the parallel coordinates; merges without the parameter are at `none`, below its range."""
    known = [value for value in values if value is not None]
    if any(isinstance(value, (str, bool)) for value in known):
        names = sorted({str(value) for value in known})
        places = [names.index(str(value)) if value is not None else -1 for value in values]
        ticks, texts = list(range(len(names))), [_plain(name) for name in names]
        low, high, none = 0.0, float(len(names) - 1), -1.0
    else:
        low, high = float(min(known)), float(max(known))
        span = (high - low) or abs(high) or 1.0
        none = low - 0.15 * span
        places = [none if value is None else float(value) for value in values]
        ticks = [low, *(low + span * i / 4 for i in range(1, 4)), high] if high > low else [low]
        texts = [number(tick, 3) for tick in ticks]
    if len(known) < len(values):
        ticks, texts, low = [none, *ticks], ["none", *texts], none
    if low == high:
        low, high = low - 0.5, high + 0.5
    return {"label": _plain(label), "values": places, "tickvals": ticks, "ticktext": texts, "range": [low, high]}
