"""Commands on single checkpoints and caches, without a run."""

from pathlib import Path
from typing import Annotated

import typer

from nex_merge.cli.app import Set, ShortFormat, app
from nex_merge.errors import InputError
from nex_merge.setup import config as configuration


@app.command()
def score(
    cache: Annotated[Path | None, typer.Option(help="a sparse activation cache")] = None,
    model: Annotated[str | None, typer.Option(help="a checkpoint folder or hub id, with --prompts")] = None,
    prompts: Annotated[str | None, typer.Option(help="JSONL, text, CSV or Parquet")] = None,
    settings: Set = None,
    rho: Annotated[float, typer.Option(help="probability of staying in a phase")] = 0.95,
    min_run: Annotated[int, typer.Option(min=1, help="shortest phase, in rows")] = 2,
    weights: Annotated[
        Path | None, typer.Option(help="neuron weights (.npz with keys, weights) to score under")
    ] = None,
    weights_out: Annotated[Path | None, typer.Option(help="save the neuron weights used")] = None,
    form: Annotated[ShortFormat, typer.Option("--format")] = ShortFormat.table,
) -> None:
    """NEX of a cache, or of a model's answers to prompts."""
    from nex_merge.inspect.score import print_score, save_weights, score_cache, score_model

    if not 0 < rho < 1:
        raise InputError(f"--rho: found {rho}; a probability between 0 and 1, ends left out, would do")
    if (cache is None) == (model is None) or (model is None) != (prompts is None):
        raise InputError("score: give either --cache DIR, or --model M with --prompts F")
    if cache is not None:
        if settings:
            raise InputError("score: --set belongs to --model; a cache is scored as it was captured")
        found, used = score_cache(cache, rho, min_run, weights)
    else:
        assert model is not None and prompts is not None
        from nex_merge.setup.families import defaults_of

        defaults, family = defaults_of(model)
        if family is not None:
            typer.echo(f"settings begin with the defaults of family {family}; --set changes them", err=True)
        asked = configuration.merge_mappings(defaults, configuration.override(settings or []))
        found, used = score_model(model, prompts, asked, rho, min_run, weights)
    if weights_out is not None:
        save_weights(weights_out, used)
    print_score(found, form.value)
