"""A run of a toy search with answers by hand, for comparisons."""

from pathlib import Path

from nex_merge.compare.pairs import begin, open_comparison
from nex_merge.runs.preferred import tallies
from nex_merge.runs.run import RunFolder
from tests.conftest import toy_settings

PROMPTS = 12


def settings_of(toy, output: Path) -> dict:
    settings = toy_settings(toy, output)
    settings["prompts"]["limit"] = PROMPTS
    settings["study"] = {"trials": 2, "objective": "consensus"}
    settings["activations"] = {"capture": "none"}
    settings["generation"]["max_new_tokens"] = 8
    return settings


def word(number: int) -> str:
    """A word without meaning."""
    return "".join("bdfgklmnprst"[(number + i) % 12] + "aeiou"[(number * i) % 5] for i in range(4))


def chat(v: int, p: int) -> str:
    """Open-ended: every variant has words of its own, but for the last prompt."""
    return "the same" if p == PROMPTS - 1 else f"A {word(p)} is what {word(20 + v)} sang of"


def numbers(v: int, p: int) -> str:
    """Base says another number than the rest on all but the last two prompts, in other words on the last but one."""
    if p == PROMPTS - 1:
        return "So it is 7."
    return f"In {v} words, 8." if p == PROMPTS - 2 else f"So it is {p if v == 0 else p + 100}."


def opened(folder: Path, *between: str):
    return begin(open_comparison(RunFolder(folder), between or None))


def say(comparison, wanted: str, count: int, judge: str = "ann"):
    """Let a judge prefer a trial (or say both or neither) on the first prompts, in the order drawn."""
    found = []
    for question in comparison.questions()[:count]:
        said = wanted
        if wanted in comparison.comparison.between:
            place = ("first", "second")[comparison.comparison.between.index(wanted)]
            said = next(
                side for side in ("left", "right") if comparison.judgement(question.prompt, judge, side).better == place
            )
        found.append(comparison.judgement(question.prompt, judge, said))
    return comparison.keep(*found)


def is_settled(run: Path, one: str, other: str) -> bool:
    """Whether a blind comparison says which of two trials is better."""
    return any({*found.comparison.between} == {one, other} and found.winner is not None for found in tallies(run))
