"""`nex-merge neurons` and `nex-merge transfer`: which neurons are effective, and what they do in another model."""

from pathlib import Path
from typing import Annotated

import typer

from nex_merge.cli.app import LOOK, USE, Run, Set, app, example, path_value, say_next
from nex_merge.cli.score import MinRun, Rho, check_rho
from nex_merge.errors import InputError
from nex_merge.inert import json_text
from nex_merge.setup import config as configuration
from nex_merge.terminal import echo

Json = Annotated[bool, typer.Option("--json", help="print JSON")]
SETS = ("effective", "redundant", "random", "alike")


@app.command(rich_help_panel=LOOK, epilog=example("neurons results/qwen3_ties --trial pairs --top 5"))
def neurons(
    run: Run,
    trial: Annotated[str, typer.Option(help="trial id, such as base or 7")],
    top: Annotated[int, typer.Option(min=1, help="show the top N neurons of either sign, and the top N overlaps")] = 10,
    as_json: Json = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", callback=path_value, help="write a figure")] = None,
    npz: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", callback=path_value, help="save all neurons, for example for score --weights"),
    ] = None,
) -> None:
    """List a variant's effective and redundant neurons, and which other variants share them."""
    from nex_merge.runs.files import check_output_file

    for option, file, ending in (("--plot", plot, ".png"), ("--npz", npz, ".npz")):
        if file is not None:
            check_output_file(file, option, ending)
    from nex_merge.inspect.neuron_views import as_mapping, draw_neurons, print_neurons
    from nex_merge.inspect.neurons import read_neurons, save_neurons
    from nex_merge.runs.run import RunFolder

    opened = RunFolder(run)
    found = read_neurons(opened, trial)
    if npz is not None:
        save_neurons(npz, found.neurons)
        echo(f"wrote {npz}", err=True)
    if plot is not None:
        draw_neurons(found, plot)
        echo(f"wrote {plot}", err=True)
    if as_json:
        echo(json_text(as_mapping(found, top)))
    else:
        print_neurons(found, run, top)
        prompts, family = opened.config.prompts.file or "FILE", opened.config.family
        if npz is not None:
            say_next("Score a model under them", "score", "--model", "MODEL", "--prompts", prompts, "--weights", npz)
        elif found.trial.isdecimal() or not isinstance(family, str):
            say_next(
                "To copy them into another model with `transfer`, first write this one as a checkpoint",
                *("export", run, "--trial", trial, "--out", "DIR"),
            )
        else:
            pair = ("--family", family, "--from", found.trial, "--into", "MODEL", "--count", "N", "--prompts", prompts)
            say_next("What they do in another model", "transfer", *pair, "--data", "FILE")


@app.command(
    rich_help_panel=USE,
    epilog=example(
        "transfer --family qwen3-tiny --from pairs --into signs --count 32 "
        "--prompts configs/prompts/qwen3_tiny.jsonl --data builtin"
    ),
)
def transfer(
    donor: Annotated[
        str,
        typer.Option(
            "--from", metavar="DONOR", callback=path_value, help="checkpoint folder, hub id, or member of --family"
        ),
    ],
    recipient: Annotated[
        str,
        typer.Option(
            "--into",
            metavar="RECIPIENT",
            callback=path_value,
            help="checkpoint folder, hub id, or member of --family; never modified",
        ),
    ],
    count: Annotated[str, typer.Option(metavar="K[,K...]", help="number of neurons to copy")],
    prompts: Annotated[
        str,
        typer.Option(
            metavar="FILE", callback=path_value, help="unlabelled prompts; the donor's responses determine the neurons"
        ),
    ],
    sets: Annotated[
        str,
        typer.Option(
            "--neurons",
            metavar="SET[,SET...]",
            help="effective, redundant, random (matched to effective) or alike (effective, matched to redundant)",
        ),
    ] = "effective,redundant,random",
    seeds: Annotated[
        int, typer.Option(min=1, help="number of random draws; if more than one, each uses half of the prompts")
    ] = 1,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            callback=path_value,
            help="labelled problems: prompts with their answers as JSONL, JSON, CSV or Parquet; or 'builtin'",
        ),
    ] = None,
    match: Annotated[
        str, typer.Option(help="how answers are read and compared: number, choice, text or regex:PATTERN")
    ] = "text",
    limit: Annotated[
        int | None, typer.Option(min=1, help="use only the first N problems; builtin: N of each kind")
    ] = None,
    family: Annotated[str | None, typer.Option(help="family that DONOR and RECIPIENT may be members of")] = None,
    settings: Set = None,
    rho: Rho = 0.95,
    min_run: MinRun = 2,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", callback=path_value, help="write the recipient with one set of neurons as a checkpoint"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy a donor's effective, redundant or random neurons into another model and measure the effect."""
    names, counts = _parse_sets(sets), _parse_counts(count)
    check_rho(rho)
    if data is None and out is None:
        raise InputError(
            "transfer: expected --data FILE (or 'builtin') to measure, --out DIR to write a checkpoint, or both"
        )
    if out is not None and (len(names), len(counts), seeds) != (1, 1, 1):
        raise InputError(
            f"--out: expected a single set, count and seed, because one checkpoint is written, got --neurons {sets} "
            f"--count {count} --seeds {seeds}"
        )
    from nex_merge.engines.transformers import CheckpointEngine
    from nex_merge.inspect.models import find_model
    from nex_merge.inspect.transfer import experiment, export, summary
    from nex_merge.setup.prompts import load_prompts

    given = configuration.override(settings or [])
    config, observed = experiment.read_settings(prompts, family, given, rho, min_run)
    problems = None if data is None else experiment.read_problems(data, match, limit, family, config.prompts)
    unlabelled = load_prompts(config.prompts)
    donor_folder = find_model(donor, family, "--from")
    recipient_folder = find_model(recipient, family, "--into")
    if donor_folder == recipient_folder:
        raise InputError(f"--into: expected another model than the donor, got {recipient}")
    if out is not None:
        export.check_out(out, donor_folder, recipient_folder)
    pair = experiment.Pair(
        CheckpointEngine(str(donor_folder), config.runtime, "--from"),
        CheckpointEngine(str(recipient_folder), config.runtime, "--into"),
    )
    chosen = experiment.choose_neurons(pair, unlabelled, config.prompts, observed, names, counts, seeds, _log)
    about = {"donor": donor, "recipient": recipient, **config.model_dump(exclude={"runtime"})}
    about |= observed.phases.model_dump()
    if problems is not None:
        found = experiment.transfer(pair, chosen, problems, observed, _log)
        if as_json:
            echo(json_text(summary.as_mapping(found, problems.kinds, about)))
        else:
            title = f"Neurons of {donor} in {recipient}, on {len(problems.items)} problems"
            summary.print_transfer(found, problems.kinds, title)
    if out is not None:
        for line in export.export_transplant(pair, chosen[0], about, out):
            echo(line, err=as_json)
    if not as_json:
        if out is not None:
            say_next("Its score", "score", "--model", out, "--prompts", prompts)
        else:
            of = () if family is None else ("--family", family)
            pair = ("--from", donor, "--into", recipient, "--prompts", prompts, "--neurons", names[0])
            say_next(
                "One set of neurons as a checkpoint", "transfer", *of, *pair, "--count", counts[-1], "--out", "DIR"
            )


def _log(text: str) -> None:
    echo(text, err=True)


def _parse_sets(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in SETS:
            raise InputError(f"--neurons: unknown set {name!r}.{configuration.nearest(name, SETS, 'sets')}")
    return list(dict.fromkeys(names))


def _parse_counts(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isdecimal() or int(part) < 1:
            raise InputError(
                f"--count: expected a positive integer, got {part!r}. Separate several with commas: --count 8,32,128"
            )
    return sorted({int(part) for part in parts})
