"""Commands that look inside responses: their phases, and whether people see the same."""

import io
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from nex_merge.cli.app import Run, Set, app
from nex_merge.errors import InputError
from nex_merge.setup import config as configuration

Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def phases(
    run: Annotated[Path | None, typer.Argument(help="a run folder", show_default=False)] = None,
    trial: Annotated[str | None, typer.Option(help="a trial's id; the leaderboard's first unless given")] = None,
    response: Annotated[int | None, typer.Option(help="its number among the trial's, from 0; the first")] = None,
    model: Annotated[str | None, typer.Option(help="instead of a run: a checkpoint folder or hub id")] = None,
    prompt: Annotated[str | None, typer.Option(help="what --model is asked")] = None,
    family: Annotated[
        str | None, typer.Option(help="whose defaults --model takes; those of the known family that it is of")
    ] = None,
    settings: Set = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write it as a page, too")] = None,
    as_json: Json = False,
) -> None:
    """One response with where it explores and where it exploits: novelty, phases, cycles and their credit."""
    if (run is None) == (model is None) or (model is None) != (prompt is None):
        raise InputError("phases: give either a run folder, or --model M with --prompt TEXT")
    if run is not None and (settings or family is not None):
        raise InputError("phases: --set and --family belong to --model; a run is shown as it was scored")
    if model is not None and trial is not None:
        raise InputError("phases: --trial belongs to a run folder")
    if prompt is not None and not prompt.strip():
        raise InputError("--prompt: found no text")
    if html is not None and html.is_dir():
        raise InputError(f"--html: {html} is a folder; a file's name would do")
    from nex_merge.inspect.checkpoint import choose_answer
    from nex_merge.inspect.show import as_mapping, render_page
    from nex_merge.inspect.source import choose_response
    from nex_merge.inspect.terminal import print_reading
    from nex_merge.runs.files import write_atomically

    number = response or 0
    if run is not None:
        found = choose_response(run, trial, number)
    else:
        assert model is not None and prompt is not None
        found = choose_answer(model, prompt, family, configuration.override(settings or []), number)
    which = f"response {number} of {found.count}"
    if response is None and found.count > 1:
        which += f" (the first; --response 0 to {found.count - 1} shows any)"
    facts = [f"{found.title}, {which}", f"settings: {found.settings}"]
    if html is not None:
        write_atomically(html, render_page(found.reading, f"Phases: {found.title}", facts))
        typer.echo(f"wrote {html}", err=True)
    if as_json:
        about = {"of": found.title, "response": number, "responses": found.count, "settings": found.settings}
        typer.echo(json.dumps({**about, **as_mapping(found.reading)}, indent=1))
        return
    _replace_unknown_signs()
    print_reading(found.reading, facts)


@app.command()
def agreement(
    run: Run,
    annotations: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="JSONL with response, start, end, label (explore or exploit), unit (characters or tokens) and trial; "
            "'builtin': by the language of qwen3-tiny's problems",
        ),
    ],
    trial: Annotated[str | None, typer.Option(help="a trial's id; those of FILE, else the leaderboard's first")] = None,
    tolerance: Annotated[int, typer.Option(min=0, help="rows that matched boundaries may be apart")] = 1,
    as_json: Json = False,
) -> None:
    """Do people see the phases that NEX finds? Cohen's kappa and boundaries, against labels turned round."""
    from dataclasses import asdict

    from nex_merge.inspect.annotated import compare, print_comparison
    from nex_merge.inspect.source import annotated, problem_labelled

    chosen = problem_labelled(run, trial) if annotations == "builtin" else annotated(run, Path(annotations), trial)
    found = compare(chosen.pairs, tolerance)
    if as_json:
        typer.echo(json.dumps({"of": chosen.title, **asdict(found)}, indent=1))
        return
    _replace_unknown_signs()
    typer.echo(chosen.title)
    print_comparison(found)


def _replace_unknown_signs() -> None:
    # Output in another encoding than UTF-8 gets question marks, not a traceback.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
