"""A run as one HTML page that needs no network. Composes data, figures, readings and the template."""

from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nex_merge.errors import InputError
from nex_merge.inspect.show import STYLE
from nex_merge.records import SCORES
from nex_merge.report import data, figures, words
from nex_merge.report.comparison import compare
from nex_merge.runs import files
from nex_merge.runs.leaderboard import verdict
from nex_merge.study.optuna_study import importances

SECTIONS = {
    "pick": "Pick", "ranking": "Leaderboard", "history": "Over the trials", "accuracy": "Accuracy",
    "importance": "Parameters", "front": "Score against length", "phases": "Reasoning", "recipe": "Recipe",
    "run": "What was run",
}  # fmt: skip


def write_report(run: Path, file: Path, made: datetime, note: Callable[[str], None]) -> int:
    """Write the page of a run, finished or not, as it is now; its size in bytes.

    `note` is told what the page can't show. Raises InputError where `run` is no run folder.
    """
    page = render(data.take_snapshot(run), made, note)
    files.write_atomically(file, page)
    return file.stat().st_size


def render(snapshot: data.Snapshot, made: datetime, note: Callable[[str], None]) -> str:
    environment = Environment(
        loader=PackageLoader("nex_merge", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": data.number,
        "short": data.short,
        "called": words.called,
        "interval": words.interval,
    }
    parts = {**_about(snapshot), **_ranking(snapshot), **_figures(snapshot), **_reasoning(snapshot, note)}
    return environment.get_template("page.html.jinja").render(
        made=made, version=version("nex-merge"), sections=SECTIONS.items(), plotly=Markup(figures.script()), **parts
    )


def _about(snapshot: data.Snapshot) -> dict[str, Any]:
    pick, reliability = snapshot.pick, snapshot.reliability
    return {
        "name": snapshot.run.resolve().name,
        "objective": snapshot.objective,
        "progress": words.progress(snapshot),
        "pick": pick,
        "standing": words.standing(snapshot),
        "no_pick": words.no_pick(snapshot),
        "reliability": reliability,
        "verdict": verdict(reliability, snapshot.objective.name)[0] if reliability is not None else "",
        "verdict_age": words.verdict_age(snapshot),
        "reliability_facts": data.reliability_facts(reliability) if reliability is not None else [],
        "recipe": data.recipe_of(snapshot, pick) if pick is not None else None,
        "facts": data.facts(snapshot),
        "times": data.stage_times(snapshot),
        "configuration": (snapshot.run / files.CONFIG).read_text(encoding="utf-8"),
    }


def _ranking(snapshot: data.Snapshot) -> dict[str, Any]:
    rows, pick = snapshot.rows, snapshot.pick
    columns, cells = data.leaderboard_table(snapshot)
    shown = [at for at, column in enumerate(columns) if column.shown and column.name not in ("state", "reason")]
    beside = [row for row in rows if row["kind"] != "merge" or row is pick]
    beside.sort(key=lambda row: row is not pick)  # stable: then as ranked
    return {
        "rows": rows,
        "columns": columns,
        "cells": cells,
        "counted": words.counted(snapshot),
        "states": sorted(data.states(snapshot)),
        "methods": sorted({row["kind"] if row["kind"] != "merge" else row["method"] for row in rows}),
        "failed": ", ".join(data.short(row["trial"]) for row in rows if row["state"] == "failed"),
        "beside": {
            "columns": [columns[at] for at in shown],
            "lines": [[cells[rows.index(row)][at] for at in shown] for row in beside],
        },
    }


def _figures(snapshot: data.Snapshot) -> dict[str, Any]:
    rows, objective, pick = snapshot.rows, snapshot.objective, snapshot.pick
    name = objective.name
    made: dict[str, Any] = {"history": figures.over_trials(rows, objective, pick)}
    found, disagreement = data.found_agreement(snapshot)
    known = any(row["accuracy"] is not None for row in rows)
    ordered = [name, *(score for score in SCORES if score != name)]
    made |= {f"accuracy-{score}": figures.scatter(rows, score, "accuracy", pick) for score in ordered if known}
    made |= {f"rivals-{score}": figures.scatter(rows, score, name, pick) for score in ordered[1:]}
    front = data.front(rows, objective)
    against = name if name != "mean_tokens" else "nex"
    made["front"] = figures.pareto(rows, front, pick, against)
    parallel = figures.parallel(rows, objective)
    made["parallel"] = parallel and parallel[0]
    values = data.scored_values(snapshot)
    shares, why = _importances(snapshot, values)
    made["importance"] = figures.bars(shares) if shares else None
    searched = {key.removeprefix("p.") for row in snapshot.of("merge") for key in row if key.startswith("p.")}
    drawn = {id: figures.as_json(figure) for id, figure in made.items() if figure is not None}
    return {
        "figures": drawn,
        "accuracy": known,
        "agreement": found,
        "disagreement": disagreement,
        "told": words.agreement(found, name) if found is not None else "",
        "source": ", ".join(sorted({str(row["accuracy_source"]) for row in rows if row["accuracy"] is not None})),
        "accuracy_choices": _choices(drawn, "accuracy"),
        "rival_choices": _choices(drawn, "rivals"),
        "front_name": figures.title(against),
        "front_text": ", ".join(words.called(row["trial"]) for row in front),
        "parallel_width": parallel[1] if parallel else 0,
        "importance_n": len(values),
        "importance_k": len(shares),
        "importance_note": words.importance(len(values), len(shares)),
        "importance_missing": ", ".join(sorted(searched - set(shares))),
        "importance_text": ", ".join(f"{name} {share:.2f}" for name, share in shares.items()),
        "importance_why": why,
    }


def _choices(drawn: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    return [(id, figures.title(id.removeprefix(f"{prefix}-"))) for id in drawn if id.startswith(f"{prefix}-")]


def _importances(snapshot: data.Snapshot, values: Mapping[str, float]) -> tuple[Mapping[str, float], str]:
    storage = snapshot.settings["study"]["storage"]
    try:
        shares = importances(snapshot.run, storage, values)
    except InputError as error:
        return {}, str(error)
    if len(shares) < 2:
        return {}, f"shares take two parameters that every merge has; found {', '.join(shares) or 'none'}"
    return shares, ""


def _reasoning(snapshot: data.Snapshot, note: Callable[[str], None]) -> dict[str, Any]:
    try:
        compared, told = compare(snapshot)
    except (InputError, OSError) as error:
        note(f"the report shows no phases: {error}")
        compared, told = [], f"No phases are shown: {error}."
    return {"compared": compared, "compared_note": told, "phases_style": Markup(STYLE)}
