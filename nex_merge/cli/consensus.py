"""`nex-merge consensus`: rank any models by files of their answers."""

from pathlib import Path
from typing import Annotated

import typer

from nex_merge.cli.app import USE, ShortFormat, app, example
from nex_merge.inert import json_text
from nex_merge.setup.paths import expand_for
from nex_merge.terminal import echo


@app.command(rich_help_panel=USE, epilog=example("consensus answers/a.jsonl answers/b.jsonl answers/c.jsonl"))
def consensus(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="a JSONL file per model: prompt or messages, and response or responses; optionally answer. Or the "
            "samples of lm-eval (--log_samples), a folder per model",
            show_default=False,
        ),
    ],
    match: Annotated[
        str, typer.Option(help="how conclusions are read: auto, number, choice, text or regex:PATTERN")
    ] = "auto",
    shared: Annotated[
        bool,
        typer.Option(
            "--shared",
            help="rank on the prompts that all files have; else a prompt that a file lacks counts as not answered",
        ),
    ] = False,
    filtered: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="NAME",
            help="of lm-eval's samples: read what this filter made of the responses, in place of the responses",
        ),
    ] = None,
    form: Annotated[ShortFormat, typer.Option("--format", help="output format")] = ShortFormat.table,
) -> None:
    """Rank models by files of their answers to the same prompts; no labels, no merging, no model is loaded."""
    from nex_merge.answer_files.ranking import rank_files
    from nex_merge.answer_files.table import print_ranked, ranking_json

    ranked = rank_files([Path(expand_for(file, "FILE")) for file in files], match, shared, filtered)
    if form is ShortFormat.json:
        echo(json_text(ranking_json(ranked)))
    else:
        print_ranked(ranked)
