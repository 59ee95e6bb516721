"""Commands on neurons: which of a variant's are effective, and what they do in another model."""

from pathlib import Path
from typing import Annotated

import typer

from nex_merge.cli.app import Run, Set, app
from nex_merge.errors import InputError
from nex_merge.setup import config as configuration

Json = Annotated[bool, typer.Option("--json", help="as JSON")]


@app.command()
def neurons(
    run: Run,
    trial: Annotated[str, typer.Option(help="a trial's id, for example base or 7")],
    top: Annotated[int, typer.Option(min=1, help="list so many of either sign, and so many overlaps")] = 10,
    json: Json = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="draw them")] = None,
    npz: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="save all of them, as score --weights takes them")
    ] = None,
) -> None:
    """A variant's effective and redundant neurons by layer, weight and mass, and which of them others share."""
    for option, file, suffix in (("--plot", plot, ".png"), ("--npz", npz, ".npz")):
        if file is not None and file.suffix != suffix:
            raise InputError(f"{option}: found {file}; a name that ends in {suffix} would do")
    from nex_merge.inspect.neuron_views import as_mapping, draw_neurons, print_neurons
    from nex_merge.inspect.neurons import read_neurons, save_neurons

    found = read_neurons(run, trial)
    if npz is not None:
        save_neurons(npz, found.neurons)
        typer.echo(f"wrote {npz}", err=True)
    if plot is not None:
        draw_neurons(found, plot)
        typer.echo(f"wrote {plot}", err=True)
    if json:
        from json import dumps

        typer.echo(dumps(as_mapping(found, top), indent=1))
    else:
        print_neurons(found, run, top)


@app.command()
def transfer(
    donor: Annotated[str, typer.Option("--from", metavar="DONOR", help="a folder, a hub id, or a member of --family")],
    recipient: Annotated[str, typer.Option("--into", metavar="RECIPIENT", help="likewise; it is never changed")],
    count: Annotated[str, typer.Option(metavar="K[,K...]", help="how many neurons to copy")],
    prompts: Annotated[str, typer.Option(help="unlabelled prompts, by the donor's answers to which they are chosen")],
    sets: Annotated[
        str, typer.Option("--neurons", metavar="SET[,SET...]", help="of effective, redundant, random, alike")
    ] = "effective,redundant,random",
    seeds: Annotated[
        int, typer.Option(min=1, help="so many random draws; from two on, each goes by its own half of the prompts")
    ] = 1,
    data: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="problems: JSONL with prompt or messages, and answer; or 'builtin'"),
    ] = None,
    match: Annotated[str, typer.Option(help="exact, number, choice or regex")] = "exact",
    limit: Annotated[int | None, typer.Option(min=1, help="the first so many problems; builtin: of each kind")] = None,
    family: Annotated[str | None, typer.Option(help="whose members DONOR and RECIPIENT may name")] = None,
    settings: Set = None,
    rho: Annotated[float, typer.Option(help="probability of staying in a phase")] = 0.95,
    min_run: Annotated[int, typer.Option(min=1, help="shortest phase, in rows")] = 2,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="write the recipient with one set of one size")
    ] = None,
    json: Json = False,
) -> None:
    """Copy a donor's effective, redundant or random neurons into another model, and measure what that changes."""
    chosen_sets, counts = _sets(sets), _counts(count)
    if not 0 < rho < 1:
        raise InputError(f"--rho: found {rho}; a probability between 0 and 1, ends left out, would do")
    if data is None and out is None:
        raise InputError(
            "transfer: give --data FILE (or 'builtin') to measure, --out DIR to write a checkpoint, or both"
        )
    if out is not None and (len(chosen_sets), len(counts), seeds) != (1, 1, 1):
        raise InputError(
            f"--out: writes one checkpoint, found --neurons {sets}, --count {count}, --seeds {seeds}; "
            "one of each would do"
        )
    from nex_merge.engines.checkpoint import load_checkpoint
    from nex_merge.inspect.transfer import checkpoint, experiment, options, summary
    from nex_merge.setup.prompts import load_prompts

    how, runtime = options.read_settings(prompts, family, configuration.override(settings or []), rho, min_run)
    problems = None if data is None else options.read_problems(data, match, limit, family, how.prompts)
    asked = load_prompts(how.prompts)
    giving, taking = options.find_model(donor, family, "--from"), options.find_model(recipient, family, "--into")
    if giving == taking:
        raise InputError(f"--into: {recipient} is the donor itself; another model of its architecture would do")
    if out is not None:
        checkpoint.check_out(out, giving, taking)
    pair = experiment.Pair(
        load_checkpoint(str(giving), runtime, "--from"), load_checkpoint(str(taking), runtime, "--into")
    )
    chosen = experiment.choose_neurons(pair, asked, how, chosen_sets, counts, seeds, _note)
    about = {"donor": donor, "recipient": recipient, **how.told()}
    if problems is not None:
        found = experiment.transfer(pair, chosen, problems, how, _note)
        if json:
            from json import dumps

            typer.echo(dumps(summary.as_mapping(found, problems.kinds, about), indent=1))
        else:
            title = f"Neurons of {donor} in {recipient}, on {len(problems.items)} problems"
            summary.print_transfer(found, problems.kinds, title)
    if out is not None:
        for line in checkpoint.export_transplant(pair, chosen[0], about, out):
            typer.echo(line, err=json)


def _note(text: str) -> None:
    typer.echo(text, err=True)


def _sets(text: str) -> list[str]:
    known = ("effective", "redundant", "random", "alike")
    found = [part.strip() for part in text.split(",")]
    for part in found:
        if part not in known:
            raise InputError(f"--neurons: found {part!r}.{configuration.nearest(part, known)}")
    return list(dict.fromkeys(found))


def _counts(text: str) -> list[int]:
    found = [part.strip() for part in text.split(",")]
    for part in found:
        if not part.isdecimal() or int(part) < 1:
            raise InputError(f"--count: found {part!r}; how many neurons, for example 32 or 8,32,128, would do")
    return sorted({int(part) for part in found})
