"""A blind comparison on a terminal: a prompt, two answers, one key; kept after every key.

Questions go to stderr, as stdout has the result. Nothing says which answer is whose, nor which of the two leads: who
goes on would know it by its style.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from nex_merge import terminal
from nex_merge.compare.pairs import BOTH, LEFT, NEITHER, RIGHT, Opened, Question
from nex_merge.runs.preferred import Tally, tally
from nex_merge.wording import counted

WIDE = 100  # columns from which the answers stand side by side
FEWEST_LINES, MOST_LINES = 8, 40  # of an answer, before `w` shows the whole
_OTHER_LINES = 12  # of the screen: the prompt, headings and keys
_KEYS = {"1": LEFT, "2": RIGHT, "3": BOTH, "4": NEITHER}
_UNDO, _WHOLE, _QUIT = "u", "w", "q"


@dataclass(frozen=True)
class Screen:
    """How much fits."""

    columns: int
    lines: int

    @property
    def is_wide(self) -> bool:
        return self.columns >= WIDE

    @property
    def answer_lines(self) -> int:
        """Lines of an answer that are shown at first, the same for both."""
        room = (self.lines - _OTHER_LINES) // (1 if self.is_wide else 2)
        return min(max(room, FEWEST_LINES), MOST_LINES)


def interview(opened: Opened, judge: str) -> Tally:
    """Ask one judge until it is settled, can't be settled any more, or they stop. Returns what counts by then.

    A judge who comes after others is asked about the prompts that these have judged, too.
    """
    questions, asked = opened.questions(), list[int]()
    found = tally(opened.run.path, opened.comparison)
    while (question := _next(questions, found, judge)) is not None:
        number = 1 + sum(judge in said for said in found.by_prompt.values())
        said = _ask(question, number, len(questions), bool(asked))
        if said == _QUIT:
            break
        if said == _UNDO:
            opened = opened.take_back(asked.pop(), judge)
        else:
            opened = opened.keep(opened.judgement(question.prompt, judge, said))
            asked.append(question.prompt)
        found = tally(opened.run.path, opened.comparison)
        _say(state_line(found))
    return found


def state_line(found: Tally) -> str:
    """The state after a look, without a word on who leads."""
    looks = counted(len(found.outcomes), "look")
    if found.winner is not None:
        return f"Settled after {looks}."
    if found.state.is_over:
        return f"Not settled after {looks}, and no further one can settle it."
    return f"Not settled after {looks}; at most {found.state.at_most} more."


def _next(questions: Sequence[Question], found: Tally, judge: str) -> Question | None:
    """The next prompt for a judge; None: there is none that would count."""
    last = found.state.settled_at or (len(found.outcomes) if found.state.is_over else len(questions))
    return next((one for one in questions[:last] if judge not in found.by_prompt.get(one.prompt, {})), None)


def _ask(question: Question, number: int, most: int, can_undo: bool) -> str:
    """What a judge says: one of the sides, or the key for taking the last back, or for stopping."""
    screen = Screen(*shutil.get_terminal_size((80, 24)))
    _say(f"\nPrompt {number} of at most {most}")
    is_cut = _show(question, screen, screen.answer_lines)
    while True:
        undo = ", u undo" if can_undo else ""
        whole = ", w whole" if is_cut else ""
        _say(f"\nBetter? 1 left, 2 right, 3 both good, 4 neither{whole}{undo}, q stop: ", end="")
        key = _key()
        _say(key if key.isprintable() else "")
        if key in _KEYS:
            return _KEYS[key]
        if key == _QUIT or (key == _UNDO and can_undo):
            return key
        if key == _WHOLE:
            is_cut = _show(question, screen, None)


def _key() -> str:
    import typer

    try:
        return typer.getchar().lower() or _QUIT  # empty: the input has ended
    except EOFError:  # Ctrl-D
        return _QUIT
    except KeyboardInterrupt:
        _say("")  # what follows has a line of its own
        raise


def _show(question: Question, screen: Screen, most: int | None) -> bool:
    """Print a prompt and its two answers, of each so many lines (None: all). Returns whether any was cut."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = terminal.console(screen.columns, screen.lines, err=True)
    inner = (screen.columns - 7) // 2 if screen.is_wide else screen.columns - 4
    prompt, cut_prompt = _fitting(question.text, screen.columns, most and FEWEST_LINES)
    (left, cut_left), (right, cut_right) = (_fitting(text, inner, most) for text in (question.left, question.right))
    console.print(Text(prompt, "bold"))
    if screen.is_wide:
        table = Table(box=box.ROUNDED, expand=True, header_style="bold")
        table.add_column("1 left", ratio=1, overflow="fold")
        table.add_column("2 right", ratio=1, overflow="fold")
        table.add_row(Text(left), Text(right))
        console.print(table)
    else:
        for title, text in (("1 left", left), ("2 right", right)):
            table = Table(box=box.ROUNDED, expand=True, header_style="bold")
            table.add_column(title, overflow="fold")
            table.add_row(Text(text))
            console.print(table)
    return cut_prompt or cut_left or cut_right


def _fitting(text: str, width: int, most: int | None) -> tuple[str, bool]:
    """The first lines of a text as it is wrapped at so many columns, and whether any is left out."""
    from rich.console import Console
    from rich.text import Text

    lines = Text(text).wrap(Console(width=width), max(width, 1), overflow="fold")
    if most is None or len(lines) <= most:
        return text, False
    kept = "\n".join(line.plain.rstrip() for line in lines[: most - 1])
    return f"{kept}\n... ({counted(len(lines) - most + 1, 'line')} more)", True


def _say(text: str, end: str = "\n") -> None:
    terminal.echo(text + end, err=True, nl=False)
