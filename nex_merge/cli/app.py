"""The typer application, and arguments shared by commands."""

import importlib.metadata
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nex_merge.setup.paths import command, expand_for
from nex_merge.terminal import echo

if TYPE_CHECKING:
    from nex_merge.measures.estimates import Objective
    from nex_merge.records import Reliability
    from nex_merge.runs.rows import Row

app = typer.Typer(
    help="Search mergekit recipes without labels: merges are ranked by what they conclude, and by their neurons (NEX).",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",  # for the panels; without it, help is one list of commands
)

# What one wants, as `nex-merge --help` groups the commands.
SEARCH, LOOK, MEASURE, USE, HELP = (
    "Search: run one, and what configurations can name",
    "Look: at the ranking, responses and neurons of a run",
    "Measure: is the ranking right?",
    "Use: the pick as a checkpoint; scores without a search",
    "Help: when something is wrong",
)
FIRST_STEPS = """\
nex-merge searches mergekit recipes without labels. To begin:

  nex-merge search configs/qwen3_ties.yaml --trials 12
      The demo: merges of a small family that the package carries. Minutes on
      two cores, without GPU or network.
  nex-merge validate configs/qwen3_4b_ties.yaml --family my_family.yaml --set prompts.file=my_prompts.jsonl
      Your own models: what a search would cost. my_family.yaml names them
      (base: PATH, models: {NAME: PATH, NAME: PATH}).
  nex-merge --help
      All commands. nex-merge COMMAND --help: the options of one, and an example."""


def example(line: str) -> str:
    """What the help of a command ends with. `line`: what follows `nex-merge`; a test runs it."""
    return f"Example: nex-merge {line}"


def say(text: str) -> None:
    """A line on stderr."""
    echo(text, err=True)


def say_next(sentence: str, *words: object) -> None:
    """The step after this command, on stderr, so that results on stdout can be piped."""
    say(f"{sentence}: {command(*words)}")


def say_next_steps(
    rows: "Sequence[Row]", objective: "Objective", reliability: "Reliability | None", run: Path, audited: bool = False
) -> None:
    """What to do with a run, on stderr. `rows`: the whole leaderboard; `audited`: without the advice to audit it."""
    from nex_merge.runs.advice import next_steps

    steps = next_steps(rows, objective, reliability, run)
    for line in [step for step in steps if not (audited and command("audit", run) in step)]:
        say(line)


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"
    md = "md"


class ShortFormat(StrEnum):
    table = "table"
    json = "json"


def path_value(parameter: typer.CallbackParam, value: Path | str | None) -> Path | str | None:
    """A callback for options that take a path: `~` and variables are replaced, as in configurations."""
    if value is None:
        return None
    name = max(parameter.opts, key=len)
    expanded = expand_for(str(value), name if name.startswith("-") else parameter.metavar or name.upper())
    return Path(expanded) if isinstance(value, Path) else expanded


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(f"nex-merge {importlib.metadata.version('nex-merge')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="print the version and exit", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    if runs := _runs_near_by():
        from nex_merge.runs.listing import as_table, listed
        from nex_merge.terminal import console_of

        console_of().print(as_table([listed(run) for run in runs]))
        say(f"\nWhat to make of one: {command('leaderboard', 'RUN')}\nAll commands: {command('--help')}")
        return
    echo(FIRST_STEPS, err=True)
    raise typer.Exit(2)  # as where typer prints the help for want of a command


def _runs_near_by() -> list[Path]:
    """The run folders here and in `results`, by name, without an import that takes time."""
    found = {path.parent for place in (".", "*", "results/*") for path in Path().glob(f"{place}/config.yaml")}
    return sorted(path for path in found if (path / "trials").is_dir())


Run = Annotated[Path, typer.Argument(help="a run folder", show_default=False, callback=path_value)]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override one setting; repeatable")]
