"""Problems with answers a program verifies, and the reasoning a model is trained to write.

A problem is a chain of sub-problems of one kind. Every sub-problem has a letter (a to i) and labelled numbers:

    pairs                                   signs
    a: a1 12 a2 5 a3 9 a? 21                a: a1 40 a2 5 a3 9 a? 36
    b: b1 31 b2 8 b3 2 b? 10                ...

`pairs`: which two of the numbers add up to the target (a?)?  Answer: their labels.
`signs`: which signs before the second and third number reach the target?  Answer: the signs.
`diffs`: which two of the numbers are the target apart?  Answer: the larger one's label, the smaller one's.
`triples`: which three of the numbers add up to the target?  Answer: their labels.

All need search (candidates are tried in a fixed order until one fits) and computation (a sum for each try), and they
share the skills of looking a label up and adding. qwen3-tiny knows `pairs` and `signs`; the others make further
families for studies. This module knows nothing of models or tokenizers; a word between blanks is one token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

LETTERS = "abcdefghi"
NUMBERS = 100
ITEMS = {"pairs": 5, "signs": 3, "diffs": 5, "triples": 5}
# What qwen3-tiny is trained on.
KINDS = ("pairs", "signs")
# Sub-problems in a chain, chosen so that every kind's responses average well over 300 tokens.
CHAIN_LENGTHS = {"pairs": (4, 6), "signs": (5, 8), "diffs": (4, 6), "triples": (3, 4)}


@dataclass(frozen=True)
class SubProblem:
    """One search: `numbers` under the labels `<letter>1`, `<letter>2`, ..., to reach `target`."""

    kind: str
    letter: str
    numbers: tuple[int, ...]
    target: int

    def statement(self) -> str:
        items = " ".join(f"{self.letter}{i} {n}" for i, n in enumerate(self.numbers, 1))
        return f"{self.letter}: {items} {self.letter}? {self.target}"

    def tries(self) -> list[tuple[str, int, str]]:
        """All candidates in the order they are tried: (what is written, what it comes to, the answer it stands for)."""
        label = [f"{self.letter}{i}" for i in range(1, len(self.numbers) + 1)]
        named = list(zip(label, self.numbers, strict=True))
        if self.kind == "signs":
            chains = [(named, signs) for signs in product("+-", repeat=len(named) - 1)]
            return [(*_computed(terms, signs), " ".join(signs)) for terms, signs in chains]
        chosen = [list(terms) for terms in combinations(named, 3 if self.kind == "triples" else 2)]
        if self.kind == "diffs":
            # The larger number comes first, so that no difference is below 0.
            chosen = [sorted(terms, key=lambda term: -term[1]) for terms in chosen]
        sign = "-" if self.kind == "diffs" else "+"
        return [(*_computed(terms, sign * (len(terms) - 1)), " ".join(name for name, _ in terms)) for terms in chosen]

    def solutions(self) -> list[str]:
        return [answer for _, total, answer in self.tries() if total == self.target]

    def reasoning(self, rechecks: int = 0) -> str:
        """The search as lines of text up to the first candidate that fits, re-checked `rechecks` times without need."""
        lines = [f"{self.letter}:"]
        for text, total, answer in self.tries():
            fits = total == self.target
            line = f"{text} {self.letter}? {self.target} {'yes' if fits else 'no'}"
            lines.append(line)
            if fits:
                lines += [f"wait {line}"] * rechecks + [f"{self.letter}= {answer}"]
                break
        return "\n".join(lines)


def _computed(terms: Sequence[tuple[str, int]], signs: Sequence[str]) -> tuple[str, int]:
    """A chain of sums and differences as text with its partial results, and what it comes to."""
    (name, total), *rest = terms
    text = f"{name} {total}"
    for sign, (name, number) in zip(signs, rest, strict=True):
        total = total + number if sign == "+" else total - number
        text += f" {sign} {name} {number} = {total}"
    return text, total


@dataclass(frozen=True)
class Problem:
    """A chain of sub-problems of one kind, posed and answered together."""

    kind: str
    parts: tuple[SubProblem, ...]

    @property
    def prompt(self) -> str:
        return "\n".join([self.kind, *(part.statement() for part in self.parts)])

    @property
    def answer(self) -> str:
        return "\n".join(f"{part.letter}= {part.solutions()[0]}" for part in self.parts)

    def response(self, rechecks: int = 0) -> str:
        """What a perfect model writes: the search inside <think>, then the answer."""
        thinking = "\n".join(part.reasoning(rechecks) for part in self.parts)
        return f"<think>\n{thinking}\n</think>\n\n{self.answer}"

    def is_right(self, response: str) -> bool:
        """Whether the text after </think> answers every sub-problem with one of its solutions, and nothing else."""
        _, closed, tail = response.partition("</think>")
        if not closed:
            return False
        lines = [" ".join(line.split()) for line in tail.replace("<|im_end|>", "").splitlines()]
        given = [line for line in lines if line]
        return len(given) == len(self.parts) and all(
            line in [f"{part.letter}= {solution}" for solution in part.solutions()]
            for line, part in zip(given, self.parts, strict=True)
        )


def _sub_problem(kind: str, letter: str, rng: np.random.Generator) -> SubProblem:
    """One sub-problem whose first solution in trying order is uniform over the candidates."""
    while True:
        # No partial sum leaves 0..99; where there are signs, the first number outweighs the others.
        if kind == "signs":
            numbers = np.concatenate([rng.integers(25, 75, 1), rng.integers(1, 13, ITEMS[kind] - 1)])
        else:
            numbers = rng.integers(1, 33 if kind == "triples" else 50, ITEMS[kind])
        sub = SubProblem(kind, letter, tuple(int(n) for n in numbers), 0)
        totals = [total for _, total, _ in sub.tries()]
        chosen = int(rng.integers(len(totals)))
        if totals.index(totals[chosen]) == chosen:
            return SubProblem(kind, letter, sub.numbers, totals[chosen])


def make_problem(kind: str, rng: np.random.Generator, lengths: tuple[int, int] | None = None) -> Problem:
    """A problem of `kind` with a number of sub-problems uniform over `lengths` (both ends included)."""
    if kind not in ITEMS:
        raise ValueError(f"unknown kind of problem {kind!r}; known: {', '.join(ITEMS)}")
    low, high = lengths or CHAIN_LENGTHS[kind]
    length = int(rng.integers(low, high + 1))
    start = int(rng.integers(len(LETTERS) - length + 1))
    return Problem(kind, tuple(_sub_problem(kind, letter, rng) for letter in LETTERS[start : start + length]))


def make_problems(kind: str, count: int, seed: int) -> list[Problem]:
    """`count` problems of `kind`. The same kind and seed give the same problems, and a longer list begins with a
    shorter one. The training script uses seeds of three numbers, so that no seed given here meets its problems' stream.
    """
    rng = np.random.default_rng([seed, list(ITEMS).index(kind)])
    return [make_problem(kind, rng) for _ in range(count)]


# The search's prompts come from seed 1, so none of them is among these.
HELD_OUT_SEED = 2


def held_out_problems(count: int) -> list[Problem]:
    """`count` problems of each of qwen3-tiny's kinds that no training batch and no search prompt was drawn from."""
    return [problem for kind in KINDS for problem in make_problems(kind, count, HELD_OUT_SEED)]


def vocabulary(kinds: Sequence[str] = KINDS) -> list[str]:
    """Every word that a prompt or response of these kinds may hold."""
    words = ["\n", *kinds, "yes", "no", "wait", "+", "-", "="]
    words += [str(n) for n in range(NUMBERS)]
    for letter in LETTERS:
        words += [f"{letter}{mark}" for mark in ":=?"]
        words += [f"{letter}{i}" for i in range(1, max(ITEMS.values()) + 1)]
    return words
