"""`nex-merge phases` and `nex-merge agreement`: the phases of responses, and how they compare with annotations."""

from pathlib import Path
from typing import Annotated

import typer

from nex_merge.cli.app import LOOK, MEASURE, Run, Set, app, example, path_value, say_next
from nex_merge.errors import InputError
from nex_merge.inert import json_text
from nex_merge.setup import config as configuration
from nex_merge.terminal import echo

Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command(rich_help_panel=LOOK, epilog=example("phases results/qwen3_ties --trial 3 --response 0"))
def phases(
    run: Annotated[Path | None, typer.Argument(help="run folder", show_default=False, callback=path_value)] = None,
    trial: Annotated[
        str | None, typer.Option(help="trial id; default: the first of the leaderboard", show_default=False)
    ] = None,
    response: Annotated[
        int | None, typer.Option(help="number of the response, from 0; default: the first", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(callback=path_value, help="checkpoint folder or hub id, instead of a run", show_default=False),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="prompt for --model", show_default=False)] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help="family that provides default settings for --model; default: the known family it belongs to",
            show_default=False,
        ),
    ] = None,
    settings: Set = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE.html", callback=path_value, help="also write an HTML page")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the explore and exploit phases of one response, with its cycles and their credit."""
    if (run is None) == (model is None) or (model is None) != (prompt is None):
        raise InputError("phases: expected either a run folder, or --model MODEL and --prompt TEXT")
    if run is not None and (settings or family is not None):
        raise InputError("phases: --set and --family require --model; a run is shown as it was scored")
    if model is not None and trial is not None:
        raise InputError("phases: --trial requires a run folder")
    if prompt is not None and not prompt.strip():
        raise InputError(f"--prompt: expected text, got {prompt!r}")
    if html is not None:
        from nex_merge.runs.files import check_output_file

        check_output_file(html, "--html", ".html", ".htm")
    from nex_merge.inspect.reading_html import as_mapping, render_page
    from nex_merge.inspect.reading_text import print_reading
    from nex_merge.inspect.views import view_answer, view_response
    from nex_merge.runs.files import trial_label, write_atomically
    from nex_merge.runs.run import RunFolder

    number = response or 0
    if run is not None:
        view = view_response(RunFolder(run), trial, number)
    else:
        assert model is not None and prompt is not None
        view = view_answer(model, prompt, family, configuration.override(settings or []), number)
    which = f"response {number} of {view.count}"
    if response is None and view.count > 1:
        which += f" (use --response 0 to {view.count - 1} to choose)"
    facts = [f"{view.title}, {which}", f"settings: {view.settings}"]
    if html is not None:
        write_atomically(html, render_page(view.reading, f"Phases: {view.title}", facts))
        echo(f"wrote {html}", err=True)
    if as_json:
        about = {"of": view.title, "response": number, "responses": view.count, "settings": view.settings}
        echo(json_text({**about, **as_mapping(view.reading)}))
        return
    print_reading(view.reading, facts)
    if view.trial is not None:
        say_next("The neurons behind it", "neurons", run, "--trial", trial_label(view.trial))


@app.command(rich_help_panel=MEASURE, epilog=example("agreement results/qwen3_ties --annotations builtin"))
def agreement(
    run: Run,
    annotations: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            callback=path_value,
            help="annotations: JSONL with response, start, end, label (explore or exploit), and optionally unit "
            "(characters or tokens) and trial; 'builtin' labels responses of family qwen3-tiny by their grammar",
        ),
    ],
    trial: Annotated[
        str | None,
        typer.Option(help="trial id; default: the trials in FILE, or the first of the leaderboard", show_default=False),
    ] = None,
    tolerance: Annotated[int, typer.Option(min=0, help="maximum distance of matched boundaries, in rows")] = 1,
    as_json: Json = False,
) -> None:
    """Compare phases with human annotations, one span per line: Cohen's kappa and boundaries, against chance."""
    from dataclasses import asdict

    from nex_merge.inspect.annotated import measure_agreement, print_agreement
    from nex_merge.inspect.annotations import annotated_responses, label_trial
    from nex_merge.runs.run import RunFolder

    opened = RunFolder(run)
    if annotations == "builtin":
        labelled = label_trial(opened, trial)
    else:
        labelled = annotated_responses(opened, Path(annotations), trial)
    found = measure_agreement(labelled.pairs, tolerance)
    if as_json:
        echo(json_text({"of": labelled.title, **asdict(found)}))
        return
    echo(labelled.title)
    print_agreement(found)
    say_next("The phases of a response", "phases", run, *(() if trial is None else ("--trial", trial)))
