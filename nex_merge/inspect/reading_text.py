"""A reading as text: on the terminal, or plain if stdout is none. Knows nothing of runs or models."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from nex_merge.inert import visible
from nex_merge.inspect.reading import EXPLOIT, EXPLORE, Reading, outcome
from nex_merge.terminal import console_of, echo, table
from nex_merge.wording import counted, decimal

MARKS = {EXPLORE: "E", EXPLOIT: "X", None: "·"}
# Both set the text colour too, so that they are legible on dark and on light backgrounds.
STYLES = {EXPLORE: "black on yellow", EXPLOIT: "black on cyan", None: ""}
BAR = 12
PLAIN_WIDTH = 120


def print_reading(reading: Reading, facts: Sequence[str]) -> None:
    """Print the facts, then the reading: its coloured text (on a terminal only), its rows and its cycles."""
    console = console_of(PLAIN_WIDTH)
    for line in [*facts, *summary(reading)]:
        echo(line)
    if console.is_terminal:
        console.print()
        console.print(_coloured(reading))
    console.print()
    console.print(_rows(reading))
    if reading.cycles:
        console.print()
        console.print(_cycles(reading))


def summary(reading: Reading) -> list[str]:
    """The reading in a few lines."""
    response = reading.response
    cut = ", truncated" if response.truncated else ""
    lines = [
        f"prompt: {_one_line(reading.prompt)}",
        f"{counted(len(response.token_ids), 'token')}{cut}, {counted(len(reading.rows), 'row')}",
    ]
    if reading.why_no_phases is not None:
        return [*lines, f"No phases: {reading.why_no_phases}"]
    phases = [row.phase for row in reading.rows]
    lines[-1] += f": {phases.count(EXPLORE)} explore (E), {phases.count(EXPLOIT)} exploit (X)"
    if None in phases:
        lines[-1] += f", {phases.count(None)} without activation mass (·)"
    if reading.score is not None:
        lines[-1] += f"; Good-Mass Fraction {reading.score:.4f}"
    if reading.why_fallback is not None:
        lines.append(f"Fallback: {reading.why_fallback}")
    if not reading.cycles:
        lines.append("No cycles: no explore phase is followed by an exploit phase, so no neuron earns credit")
    elif len(reading.cycles) == 1:
        lines.append("A single cycle: credit compares reuse with its median over cycles, so no neuron earns credit")
    return lines


def _coloured(reading: Reading) -> Text:
    text = Text()
    for phase, numbers in reading.spans:
        for number in numbers:
            text.append(visible(reading.text(reading.rows[number])), STYLES[phase])
    return text


def _rows(reading: Reading) -> Table:
    shown = table("", "cycle", "row", "slope", "", "z", left=("",))
    shown.add_column("tokens", overflow="fold")
    begins = {reading.kept_rows[cycle.first_explore]: str(i) for i, cycle in enumerate(reading.cycles, 1)}
    highest = max((row.slope for row in reading.rows if row.slope is not None), default=0.0)
    for number, row in enumerate(reading.rows):
        shown.add_row(
            Text(MARKS[row.phase], STYLES[row.phase]),
            begins.get(number, ""),
            str(number),
            decimal(row.slope, ".2f"),
            _bar(row.slope / highest if row.slope else 0.0),
            decimal(row.observation, "+.2f"),
            Text(_one_line(reading.text(row))),
        )
    return shown


def _bar(share: float) -> str:
    halves = round(2 * BAR * share)
    return "█" * (halves // 2) + "▌" * (halves % 2)


def _cycles(reading: Reading) -> Table:
    words = ("explore rows", "exploit rows", "credit")
    shown = table(
        "cycle", "explore rows", "exploit rows", "reuse", "consolidation", "credit", left=words, no_wrap=False
    )
    for number, cycle in enumerate(reading.cycles, 1):
        spans = ((cycle.first_explore, cycle.last_explore), (cycle.first_exploit, cycle.last_exploit))
        rows = ("{} to {}".format(*reading.span(*span)) for span in spans)
        shown.add_row(str(number), *rows, decimal(cycle.reuse), decimal(cycle.consolidation), outcome(cycle))
    return shown


def _one_line(text: str) -> str:
    return visible(text).replace("\n", "⏎").replace("\t", "␉")
