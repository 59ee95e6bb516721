"""`nex-merge score`: a single checkpoint or activation cache, without a run."""

from pathlib import Path
from typing import Annotated

import typer

from nex_merge.cli.app import USE, Set, ShortFormat, app, example, path_value, say_next
from nex_merge.errors import InputError
from nex_merge.setup import config as configuration
from nex_merge.setup.families import defaults_of
from nex_merge.terminal import echo

Rho = Annotated[float, typer.Option(help="probability of staying in a phase, between 0 and 1")]
MinRun = Annotated[int, typer.Option(min=1, help="shortest phase, in rows")]


def check_rho(rho: float) -> None:
    if not 0 < rho < 1:
        raise InputError(f"--rho: expected a number > 0 and < 1, got {rho}")


def announce_defaults(family: str | None) -> None:
    """Print which family's defaults apply, if any."""
    if family is not None:
        echo(f"using the defaults of family {family}; --set overrides them", err=True)


@app.command(rich_help_panel=USE, epilog=example("score --model best --prompts configs/prompts/qwen3_tiny.jsonl"))
def score(
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", callback=path_value, help="activation cache, such as RUN/trials/base/cache"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(callback=path_value, help="checkpoint folder or hub id; needs --prompts")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(metavar="FILE", callback=path_value, help="prompts: JSONL, text, CSV or Parquet")
    ] = None,
    settings: Set = None,
    rho: Rho = 0.95,
    min_run: MinRun = 2,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz", callback=path_value, help="score under these neuron weights (arrays keys and weights)"
        ),
    ] = None,
    weights_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", callback=path_value, help="save the neuron weights that were used"),
    ] = None,
    form: Annotated[ShortFormat, typer.Option("--format", help="output format")] = ShortFormat.table,
) -> None:
    """Compute NEX of an activation cache, or of a checkpoint's responses to prompts."""
    check_rho(rho)
    if (cache is None) == (model is None) or (model is None) != (prompts is None):
        raise InputError("score: expected either --cache DIR, or --model MODEL and --prompts FILE")
    if cache is not None and settings:
        raise InputError("score: --set requires --model; a cache is scored as it was captured")
    if weights_out is not None:
        from nex_merge.runs.files import check_output_file

        check_output_file(weights_out, "--weights-out", ".npz")
    from nex_merge.inspect.score import load_weights, print_score, save_weights
    from nex_merge.inspect.score import score as compute_score

    if model is not None:
        announce_defaults(defaults_of(model)[1])
    result = compute_score(
        model,
        prompts,
        cache=cache,
        settings=configuration.override(settings or []),
        rho=rho,
        min_run=min_run,
        weights=None if weights is None else load_weights(weights),
    )
    if weights_out is not None:
        save_weights(weights_out, result.weights)
    print_score(result, form.value)
    of = ("--model", model, "--prompt", "TEXT") if cache is None else _trial_of(cache)
    if of and form is ShortFormat.table:
        say_next("Where the score comes from, in a response", "phases", *of)


def _trial_of(cache: Path) -> tuple[object, ...]:
    """The run and the trial that a cache belongs to, as `phases` takes them; empty if it lies in no run."""
    from nex_merge.runs import files

    trial, run = cache.absolute().parent, cache.parent.parent.parent
    return (run, "--trial", files.trial_label(trial.name)) if (run / files.CONFIG).is_file() else ()
