"""How responses end: whether they finish, which is to stop, conclude something and not loop, or else why not.

Uses tokens and text only, neither models nor scores.
"""

from collections.abc import Sequence
from enum import Enum
from weakref import WeakKeyDictionary

import numpy as np

from nex_merge.measures.concluding import is_empty, is_over
from nex_merge.measures.measure import Measure, Pool, Value, by_prompt, prompts_of
from nex_merge.measures.text import text_figures
from nex_merge.measures.votes import Conclusions, Key
from nex_merge.records import Observation, Response

# A response loops if more than this share of its tokens is one block, repeated four times or more: there is more loop
# than anything else. Sound text repeats as well (a table, a line checked again), but in runs that are a small part of
# it; and what falls into a loop after a long sound text does not get out of it, so that it is cut.
LOOP = 0.5
# How the responses of an observation end, with the conclusions that they were read with: pools grow by one variant.
_kept: "WeakKeyDictionary[Observation, tuple[Conclusions, list[Ending]]]" = WeakKeyDictionary()


class Ending(Enum):
    """How a response ends; the value completes "30 % of the responses ..."."""

    FINISHED = "finish"
    EMPTY = "are empty"
    LOOPS = "loop"
    CUT = "are cut at max_new_tokens"
    UNCLOSED = "don't close their thinking"
    INCONCLUSIVE = "conclude nothing"


def endings(responses: Sequence[Response], repeated: np.ndarray, conclusions: Sequence[Key | None]) -> list[Ending]:
    """How each of R responses ends.

    `repeated`: share of its tokens in a loop, float64 [R]. `conclusions`: what it concludes, None for nothing. Of
    several reasons not to finish, the first in the order of `Ending` is given: what says nothing may do so in a loop,
    and what loops is also cut, and more room would not help it.
    """
    return [
        _ending(response, share, key) for response, share, key in zip(responses, repeated, conclusions, strict=True)
    ]


def _ending(response: Response, repeated: float, conclusion: Key | None) -> Ending:
    if is_empty(response):
        return Ending.EMPTY
    if repeated > LOOP:
        return Ending.LOOPS
    if response.truncated:
        return Ending.CUT
    if not is_over(response):
        return Ending.UNCLOSED
    return Ending.INCONCLUSIVE if conclusion is None else Ending.FINISHED


def endings_of(pool: Pool, index: int) -> list[Ending]:
    """How the responses of a pool's variant end, with conclusions read as in the whole pool."""
    observation, by_prompt = pool.variants[index].observation, pool.conclusions[index]
    read, found = _kept.get(observation, (None, []))
    if read is not by_prompt:
        text = observation.text or text_figures(observation.responses)
        # Responses and conclusions are both ordered by prompt, then sample.
        conclusions = [key for keys in by_prompt.values() for key in keys]
        found = endings(observation.responses, text.repeated, conclusions)
        _kept[observation] = by_prompt, found
    return found


def shares_of_endings(pool: Pool) -> dict[Ending, float]:
    """How all responses of a pool end, as shares; empty where there are none."""
    found = [ending for i in range(len(pool.variants)) for ending in endings_of(pool, i)]
    return {ending: found.count(ending) / len(found) for ending in Ending} if found else {}


class Finished(Measure):
    """Share of responses that finish."""

    def values(self, pool: Pool) -> list[Value]:
        found = []
        for i, variant in enumerate(pool.variants):
            figures = np.array([ending is Ending.FINISHED for ending in endings_of(pool, i)], np.float64)
            parts = by_prompt(figures, prompts_of(variant), pool.prompts)
            found.append(Value(float(figures.mean()) if len(figures) else None, *parts))
        return found


FINISHED = Finished(
    "finished", 1, "", 3,
    "share of responses that end by themselves, close their thinking, conclude something and do not loop",
    needs_pool=True,  # how conclusions are read depends on all variants
)  # fmt: skip
