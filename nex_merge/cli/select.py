"""`nex-merge select`: best-of-N selection among responses to the same prompt."""

from pathlib import Path
from typing import Annotated

import typer

from nex_merge.cli.app import USE, Set, app, example, path_value
from nex_merge.cli.score import MinRun, Rho, announce_defaults, check_rho
from nex_merge.errors import InputError
from nex_merge.inert import json_text
from nex_merge.setup import config as configuration
from nex_merge.terminal import echo


@app.command(rich_help_panel=USE, epilog=example("select responses.jsonl --model best --match number"))
def select(
    responses: Annotated[
        str,
        typer.Argument(
            metavar="RESPONSES",
            callback=path_value,
            help="JSONL with prompt or messages, responses (a list of texts), and optionally answer",
        ),
    ],
    model: Annotated[
        str, typer.Option(callback=path_value, help="checkpoint folder or hub id that reads (or samples) the responses")
    ],
    samples: Annotated[
        int | None, typer.Option(min=1, help="sample N responses to every prompt from the model instead")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="selector that determines `order`: majority (the default; neighbours where no response concludes "
            "anything), nex, shortest, entropy, self_certainty, fewest_neurons, medoid or neighbours",
            show_default=False,
        ),
    ] = None,
    match: Annotated[
        str, typer.Option(help="how conclusions are read and compared: number, choice, text or regex:PATTERN")
    ] = "text",
    calibration: Annotated[
        str | None,
        typer.Option(
            help="responses that neuron weights are estimated from: pool (all candidates in the file; the default) or "
            "prompt (those of the same prompt)",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz", callback=path_value, help="use these neuron weights (arrays keys and weights) instead"
        ),
    ] = None,
    rho: Rho = 0.95,
    min_run: MinRun = 2,
    summary: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", callback=path_value, help="write the accuracy of every selector as JSON"),
    ] = None,
    settings: Set = None,
) -> None:
    """Choose among several responses to each prompt by their agreement, or by NEX and other selectors; with known
    answers, measure how often each is right."""
    check_rho(rho)
    if summary is not None:
        from nex_merge.runs.files import check_output_file

        check_output_file(summary, "--summary", ".json")
    if calibration is not None and weights is not None:
        raise InputError("select: expected either --calibration or --weights, got both")
    from nex_merge.inspect.score import load_weights
    from nex_merge.inspect.select import question_file, selection
    from nex_merge.inspect.select import summary as output
    from nex_merge.inspect.select.selectors import CALIBRATIONS, SELECTORS
    from nex_merge.setup.families import defaults_of

    if by is not None and by not in SELECTORS:
        raise InputError(f"--by: unknown selector {by!r}.{configuration.nearest(by, list(SELECTORS), 'selectors')}")
    if calibration is not None and calibration not in CALIBRATIONS:
        raise InputError(f"--calibration: expected {' or '.join(CALIBRATIONS)}, got {calibration!r}")
    defaults, family = defaults_of(model)
    config = question_file.read_settings(responses, samples, configuration.override(settings or []), defaults)
    read = question_file.read_questions(config.prompts, match, samples is not None, _log)
    if summary is not None and read[0].item is None:
        raise InputError('--summary: expected known answers ("answer" in every line), got none')
    announce_defaults(family)
    phases = configuration.PhasesConfig(rho=rho, min_run=min_run)
    given = None if weights is None else load_weights(weights)
    selected = selection.select(model, read, config, match, phases, calibration or "pool", given, _log)
    for line in output.picks(selected, by):
        echo(json_text(line, None))
    for remark in (*output.remarks(selected), *output.order_in_words(selected, by)):
        _log(remark)
    if selected.right is None:
        return
    comparisons = output.comparisons(selected)
    for line in output.table(comparisons):
        _log(line)
    if summary is not None:
        used = {"model": model, "match": match, "rho": rho, "min_run": min_run, **config.model_dump()}
        used["calibration"] = (calibration or "pool") if weights is None else str(weights)
        text = json_text(output.summary(selected, comparisons, used))
        summary.parent.mkdir(parents=True, exist_ok=True)
        summary.write_text(text + "\n", encoding="utf-8")


def _log(text: str) -> None:
    echo(text, err=True)
