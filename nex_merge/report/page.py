"""The page: data, figures, sentences and annotated responses, put into the template."""

from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nex_merge.errors import InputError
from nex_merge.inspect.reading_html import STYLE
from nex_merge.labels.agreement_table import ceiling_in_words
from nex_merge.measures.registry import OBJECTIVES, measure_title
from nex_merge.report import data, figures, words, work
from nex_merge.report.comparison import compare_responses
from nex_merge.report.conclusions import NONE, differences
from nex_merge.runs import files
from nex_merge.runs.advice import lead, next_steps, verdict_lines
from nex_merge.runs.cuts import cut_lines
from nex_merge.runs.files import trial_label, trial_name
from nex_merge.runs.front import first_front, reference_in_words, volume_over
from nex_merge.runs.preferred import compared_lines
from nex_merge.runs.rows import parameters_of
from nex_merge.runs.run import RunFolder
from nex_merge.runs.work import read_stints
from nex_merge.study.importances import importances

SECTIONS = {
    "pick": "Pick", "ranking": "Leaderboard", "history": "History", "accuracy": "Accuracy",
    "importance": "Parameters", "front": "Length", "phases": "Answers", "recipe": "Recipe", "run": "Setup",
}  # fmt: skip


def write_report(run: RunFolder, file: Path, made: datetime, note: Callable[[str], None]) -> int:
    """Write the page of a run, finished or not, as it is now. Returns its size in bytes.

    `note` is called with a line for whatever the page cannot show. Raises InputError if a file of the run is damaged.
    """
    page = render(data.take_snapshot(run), made, note)
    files.write_atomically(file, page)
    return file.stat().st_size


def render(snapshot: data.Snapshot, made: datetime, note: Callable[[str], None]) -> str:
    """The page as HTML; all text from models, files and libraries is escaped."""
    environment = Environment(
        loader=PackageLoader("nex_merge", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": data.number,
        "measure_title": measure_title,
        "label": trial_label,
        "trial_name": trial_name,
        "correlation": words.correlation,
    }
    parts: dict[str, Any] = {**about_pick(snapshot), **_setup(snapshot), **_ranking(snapshot), **_figures(snapshot)}
    parts["figures"] = {id: figures.figure_json(figure) for id, figure in parts["figures"].items()}
    return environment.get_template("page.html.jinja").render(
        made=made,
        version=version("nex-merge"),
        sections={**SECTIONS, **({"front": "Objectives"} if snapshot.objective.others else {})}.items(),
        plotly=Markup(figures.script()),
        **parts,
        **_responses(snapshot, note),
    )


def about_pick(snapshot: data.Snapshot) -> dict[str, Any]:
    """What the page leads with: the pick, how certain it is, and how to reproduce it."""
    pick, reliability, objective = snapshot.pick, snapshot.reliability, snapshot.objective
    rows, folder = snapshot.rows, snapshot.run.path
    verdicts = [] if reliability is None else verdict_lines(reliability, objective.name, objective.names)
    return {
        "objective": objective,
        "lead": [_capitalized(line.strip()) for line in lead(rows, objective, reliability)],
        # Reasons are indented; what is not says something else.
        "reasons": [line.strip().removeprefix("- ") for line in verdicts[1:] if line.startswith("  - ")],
        "other_verdicts": [line.strip() for line in verdicts[1:] if not line.startswith("  - ")],
        "compared": [line.strip() for line in compared_lines(folder, None if pick is None else pick.trial)],
        "steps": words.steps(next_steps(rows, objective, reliability, folder)),
        "cuts": words.steps(cut_lines(rows, folder)),
        "progress": words.progress(snapshot),
        "pick": pick,
        "pick_by": snapshot.recommended.by,
        "no_parents": words.no_parents(snapshot),
        "no_pick": words.no_pick(snapshot),
        "reliability": reliability,
        "verdict": verdicts[0] if verdicts else "",
        "verdict_age": words.verdict_age(snapshot),
        "reliability_figures": [] if reliability is None else data.reliability_figures(reliability),
        "recipe": None if pick is None else data.recipe_of(snapshot, pick),
    }


def _capitalized(line: str) -> str:
    return f"{line[:1].upper()}{line[1:]}"


def _setup(snapshot: data.Snapshot) -> dict[str, Any]:
    return {
        "name": snapshot.run.path.resolve().name,
        "facts": data.facts(snapshot),
        "times": data.stage_times(snapshot),
        "configuration": snapshot.run.saved_text,
    }


def _ranking(snapshot: data.Snapshot) -> dict[str, Any]:
    rows, pick = snapshot.rows, snapshot.pick
    columns, cells = data.leaderboard_table(snapshot)
    equal = snapshot.equal_weights
    beside = [row for row in rows if row.kind != "merge"]  # as ranked
    compared = [row for row in (pick, equal) if row is not None] + beside
    shown = [at for at, column in enumerate(columns) if column.shown and column.name not in ("state", "reason")]
    return {
        "rows": rows,
        "columns": columns,
        "cells": cells,
        "counts": words.counts(snapshot),
        "finalists": len(snapshot.latest) if snapshot.has_final else 0,
        "states": sorted(data.states(snapshot)),
        "methods": sorted({row.kind if row.kind != "merge" else row.method for row in rows}),
        "failed": ", ".join(trial_label(row.trial) for row in rows if row.state == "failed"),
        "baselines": {
            "columns": [columns[at] for at in shown],
            "lines": [[cells[rows.index(row)][at] for at in shown] for row in compared],
        },
    }


def drawn(snapshot: data.Snapshot) -> Mapping[str, Any]:
    """The page's figures, by the ids that it gives them; only those that the run has values for."""
    return _figures(snapshot)["figures"]


def _figures(snapshot: data.Snapshot) -> dict[str, Any]:
    # The search has every variant on the same prompts; the last stage has the values that lead.
    rows, latest, objective, pick = snapshot.searched, snapshot.latest, snapshot.objective, snapshot.pick
    name, (search_note, final_note) = objective.name, words.stages(snapshot)
    made: dict[str, Any] = {"history": figures.history(rows, objective, pick)}
    agreement, no_agreement = data.find_agreement(snapshot)
    has_accuracy = any(row.accuracy is not None for row in rows)
    others = [other for other in OBJECTIVES if other != name]
    if has_accuracy:
        made |= {f"accuracy-{one}": figures.scatter(rows, one, "accuracy", pick) for one in (name, *others)}
    made |= {f"measure-{other}": figures.scatter(rows, other, name, pick) for other in others}
    front, front_name = data.front(latest, objective), data.front_objective(objective).name
    volume = volume_over(rows, objective)
    if objective.others:
        front = first_front(latest)
        made["front"] = figures.objectives(latest, objective, front, pick)
        made["volume"] = volume and figures.volume(volume)
    else:
        made["front"] = figures.pareto(latest, front, pick, front_name)
    parallel = figures.parallel(rows, objective)
    made["parallel"] = parallel and parallel[0]
    values = data.scored_values(snapshot)
    shares, no_shares = _importances(snapshot, values)
    made["importance"] = figures.importance_bars(shares) if shares else None
    worked = work.work_of(read_stints(snapshot.run.path))
    made["work"] = worked and figures.work(worked)
    searched = {*parameters_of(rows)}
    shown = {id: figure for id, figure in made.items() if figure is not None}
    return {
        "figures": shown,
        "search_note": search_note,
        "final_note": final_note,
        "has_accuracy": has_accuracy,
        "agreement": agreement,
        "no_agreement": no_agreement,
        "noise_ceiling": ceiling_in_words(ceiling) if agreement and (ceiling := agreement["noise_ceiling"]) else "",
        "agreement_summary": "" if agreement is None else words.agreement_summary(agreement, name),
        "source": ", ".join(sorted({str(row.accuracy_source) for row in rows if row.accuracy is not None})),
        "accuracy_choices": _choices(shown, "accuracy"),
        "measure_choices": _choices(shown, "measure"),
        "front_name": front_name,
        "volume": volume,
        "reference": "" if volume is None else reference_in_words(volume),
        "front_text": ", ".join(trial_name(row.trial) for row in front),
        "parallel_width": parallel[1] if parallel else 0,
        "importance_merges": len(values),
        "importance_parameters": len(shares),
        "importance_note": words.importance(len(values), len(shares)),
        "importance_missing": ", ".join(sorted(searched - set(shares))),
        "importance_text": ", ".join(f"{parameter} {share:.2f}" for parameter, share in shares.items()),
        "no_importances": no_shares,
        "work_text": "" if worked is None else work.in_words(worked),
        "work_lost": worked is not None and worked.number("lost") + worked.number("stopped") > 0,
        "work_replaced": worked is not None and any(len(lane.names) > 1 for lane in worked.lanes),
        "work_resumed": worked is not None and len(worked.ends) > 1,
    }


def _choices(drawn: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    """(figure id, name of the measure) of the scatter plots that a selector switches between."""
    return [(id, measure_title(id.removeprefix(f"{prefix}-"))) for id in drawn if id.startswith(f"{prefix}-")]


def _importances(snapshot: data.Snapshot, values: Mapping[str, float]) -> tuple[Mapping[str, float], str]:
    """The importances of the parameters; or none, and why."""
    try:
        shares = importances(snapshot.run, values)
    except InputError as error:
        return {}, str(error)
    if len(shares) < 2:
        return {}, f"expected at least 2 parameters that every merge has, got {len(shares)}"
    return shares, ""


def _responses(snapshot: data.Snapshot, note: Callable[[str], None]) -> dict[str, Any]:
    try:
        prompts, text = compare_responses(snapshot)
        found = differences(snapshot)
    except (InputError, OSError) as error:
        note(f"the report does not show responses: {error}")
        prompts, text, found = [], f"Responses are not shown: {error}.", NONE
    return {
        "compared_prompts": prompts,
        "compared_note": text,
        "differences": found,
        "phases_style": Markup(STYLE),
    }
