"""Choosing among several answers to the same prompt."""

import json
from pathlib import Path
from typing import Annotated

import typer

from nex_merge.cli.app import Set, app
from nex_merge.errors import InputError
from nex_merge.setup import config as configuration


@app.command()
def select(
    responses: Annotated[
        str, typer.Argument(metavar="RESPONSES", help="JSONL: prompt or messages, responses (texts), answer if known")
    ],
    model: Annotated[str, typer.Option(help="a checkpoint folder or hub id, whose activations choose")],
    samples: Annotated[
        int | None, typer.Option(min=1, help="draw so many responses to every prompt from the model first")
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="the selector that `order` follows: nex, majority, shortest, entropy, self_certainty, fewest_neurons, "
            "medoid or neighbours"
        ),
    ] = "nex",
    match: Annotated[str, typer.Option(help="what a response concludes: exact, number, choice or regex")] = "exact",
    calibration: Annotated[
        str | None,
        typer.Option(
            help="whose credit neuron weights come from: pool, all candidates of the file (unless told otherwise), or "
            "prompt, those of the same prompt",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="neuron weights (.npz with keys, weights) instead of a calibration")
    ] = None,
    rho: Annotated[float, typer.Option(help="probability of staying in a phase")] = 0.95,
    min_run: Annotated[int, typer.Option(min=1, help="shortest phase, in rows")] = 2,
    summary: Annotated[Path | None, typer.Option(help="write the accuracy of every selector as JSON")] = None,
    settings: Set = None,
) -> None:
    """Rank several answers to each prompt by NEX and its rivals; with answers known, say how often each is right."""
    if not 0 < rho < 1:
        raise InputError(f"--rho: found {rho}; a probability between 0 and 1, ends left out, would do")
    if calibration is not None and weights is not None:
        raise InputError("select: give either --calibration or --weights")
    from nex_merge.inspect.score import load_weights
    from nex_merge.inspect.select.selectors import CALIBRATIONS, SELECTORS
    from nex_merge.setup.families import defaults_of

    for option, found, known in (("by", by, SELECTORS), ("calibration", calibration or "pool", CALIBRATIONS)):
        if found not in known:
            raise InputError(f"--{option}: found {found!r}.{configuration.nearest(found, list(known))}")
    from nex_merge.inspect.select import questions, selection
    from nex_merge.inspect.select import summary as summaries

    defaults, family = defaults_of(model)
    config = questions.configure(responses, samples, configuration.override(settings or []), defaults)
    asked = questions.read_questions(config.prompts, match, samples is not None)
    if summary is not None and asked[0].item is None:
        raise InputError('--summary: no answers are known, so there is no accuracy; "answer" in every line would do')
    if family is not None:
        _note(f"settings begin with the defaults of family {family}; --set changes them")
    given = None if weights is None else load_weights(weights)
    chosen = selection.select(model, asked, config, match, rho, min_run, calibration or "pool", given, _note)
    for line in summaries.picks(chosen, by):
        typer.echo(json.dumps(line))
    for remark in summaries.remarks(chosen):
        _note(remark)
    if chosen.right is None:
        return
    found = summaries.comparisons(chosen)
    for line in summaries.table(found):
        _note(line)
    if summary is not None:
        made_by = {"model": model, "match": match, "rho": rho, "min_run": min_run, **config.model_dump()}
        made_by["calibration"] = (calibration or "pool") if weights is None else str(weights)
        text = json.dumps(summaries.summary(chosen, found, made_by), indent=1)
        summary.parent.mkdir(parents=True, exist_ok=True)
        summary.write_text(text + "\n", encoding="utf-8")


def _note(text: str) -> None:
    typer.echo(text, err=True)
