"""Worded problems of two kinds whose answers a program verifies, with the short worked solutions experts learn.

`arithmetic`: a story of two or three steps with small whole numbers.
`lists`: of five words in a row some change places; which one stands at a given place now?

Everything is a function of (kind, seed, number), so no set of problems depends on how many are drawn. This module knows
nothing of models or tokenizers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nex_merge import is_correct

KINDS = ("arithmetic", "lists")
MATCH = {"arithmetic": "number", "lists": "text"}
# What every prompt begins with, so that all of them share their first tokens.
INSTRUCTION = 'Solve the problem in short steps and end with "The answer is ...".\n'
NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Julia", "Kate", "Leo", "Mary", "Paul",
         "Rose", "Sam", "Tom")  # fmt: skip
THINGS = ("apples", "books", "cards", "coins", "eggs", "flowers", "shells", "stones", "tickets", "toys")
HOLDERS = ("bags", "boxes", "packs", "jars")
WORDS = (
    "apple", "ball", "bear", "bell", "bird", "boat", "book", "bread", "bridge", "cake", "car", "chair", "cloud", "coat",
    "corn", "cup", "desk", "door", "drum", "fish", "flag", "flower", "fork", "garden", "glass", "gold", "hand", "hat",
    "horse", "house", "key", "king", "lake", "lamp", "leaf", "lion", "map", "milk", "moon", "mouse", "nest", "paper",
    "pencil", "piano", "plate", "queen", "rain", "ring", "river", "road", "rock", "rose", "salt", "sand", "school",
    "ship", "shoe", "snow", "star", "stone", "sugar", "sun", "table", "tiger", "tower", "train", "tree", "wall",
    "watch", "water", "wheel", "wind", "window", "wolf", "wood",
)  # fmt: skip
PLACES = ("first", "second", "third", "fourth", "fifth")


@dataclass(frozen=True)
class Problem:
    """A problem, its answer, and the response an expert learns to give."""

    kind: str
    prompt: str
    answer: str
    response: str

    def is_right(self, response: str, truncated: bool) -> bool:
        """Whether a response concludes the answer, as the product reads it; one that was cut off concludes nothing."""
        return not truncated and is_correct(response, self.answer, MATCH[self.kind])


def make_problems(kind: str, count: int, seed: int, first: int = 0) -> list[Problem]:
    """Problems `first` to `first + count` of a kind and seed."""
    make = _MAKERS[kind]
    return [make(np.random.default_rng([seed, KINDS.index(kind), number])) for number in range(first, first + count)]


def _arithmetic(rng: np.random.Generator) -> Problem:
    name, other = rng.choice(NAMES, 2, replace=False)
    thing, holder = rng.choice(THINGS), rng.choice(HOLDERS)
    steps: list[str] = []

    def times(a: int, b: int) -> int:
        steps.append(f"{a} * {b} = {a * b}.")
        return a * b

    def plus(a: int, b: int) -> int:
        steps.append(f"{a} + {b} = {a + b}.")
        return a + b

    def minus(a: int, b: int) -> int:
        steps.append(f"{a} - {b} = {a - b}.")
        return a - b

    def below(high: int, low: int = 2) -> int:
        return int(rng.integers(low, high))

    start, each, some = below(20, 5), below(8, 2), below(5, 2)
    story = rng.integers(5)
    if story == 0:
        total = plus(start, times(some, each))
        text = f"{name} has {start} {thing} and buys {some} {holder} of {each}."
        if rng.random() < 0.5:
            gone = below(total - 1)
            total = minus(total, gone)
            text += f" {name} gives {gone} to {other}."
        question = f"How many {thing} does {name} have now?"
    elif story == 1:
        total = times(some, each)
        gone = below(total - 1)
        total = minus(total, gone)
        text = f"{name} has {some} {holder} of {each} {thing} and sells {gone} of them."
        if rng.random() < 0.5:
            found = below(20)
            total = plus(total, found)
            text += f" Then {name} finds {found} more."
        question = f"How many {thing} does {name} have in the end?"
    elif story == 2:
        more = below(15)
        theirs = plus(start, more)
        total = plus(start, theirs)
        text = f"{name} has {start} {thing}. {other} has {more} more than {name}."
        question = f"How many {thing} do they have together?"
    elif story == 3:
        theirs = times(start, 2)
        gone = below(theirs - 1)
        total = minus(theirs, gone)
        text = f"{name} has {start} {thing}. {other} has twice as many, but loses {gone}."
        question = f"How many {thing} does {other} have left?"
    else:
        price = below(9)
        cost = times(some, price)
        paid = cost + below(30)
        total = minus(paid, cost)
        text = f"{name} has {paid} dollars and buys {some} {holder} for {price} dollars each."
        question = "How many dollars are left?"
    return Problem(
        "arithmetic", f"{INSTRUCTION}{text} {question}", str(total), f"{' '.join(steps)} The answer is {total}."
    )


def _to_end(words: list[str]) -> list[str]:
    return [*words[1:], words[0]]


def _to_front(words: list[str]) -> list[str]:
    return [words[-1], *words[:-1]]


def _swap_ends(words: list[str]) -> list[str]:
    return [words[-1], *words[1:-1], words[0]]


def _swap_head(words: list[str]) -> list[str]:
    return [words[1], words[0], *words[2:]]


_MOVES: tuple[tuple[str, Callable[[list[str]], list[str]]], ...] = (
    ("moves the first to the end", _to_end),
    ("moves the last to the front", _to_front),
    ("swaps the first and the last", _swap_ends),
    ("swaps the first two", _swap_head),
)
_OPENINGS = ("{name} puts cards in a row: {row}.", "{name} writes: {row}.", "{name} has a row of pictures: {row}.")


def _lists(rng: np.random.Generator) -> Problem:
    row = [str(word) for word in rng.choice(WORDS, 5, replace=False)]
    name, opening = rng.choice(NAMES), str(rng.choice(_OPENINGS))
    move, do = _MOVES[int(rng.integers(len(_MOVES)))]
    moved = do(row)
    # Only places where the move makes a difference are asked for.
    place = int(rng.choice([i for i in range(5) if moved[i] != row[i]]))
    text = f"{opening.format(name=name, row=', '.join(row))} {name} {move}. Which one is {PLACES[place]} now?"
    numbered = ", ".join(f"{i} {word}" for i, word in enumerate(moved, 1))
    return Problem("lists", INSTRUCTION + text, moved[place], f"Now: {numbered}. The answer is {moved[place]}.")


_MAKERS: dict[str, Callable[[np.random.Generator], Problem]] = {"arithmetic": _arithmetic, "lists": _lists}
