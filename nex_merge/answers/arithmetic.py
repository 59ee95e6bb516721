"""Tokens -> the value of the expression that begins at one of them, exactly where it is rational.

    sum: product (("+" | "-") product)*        product: power (("*" | "/") power | power)*
    power: atom "!"* ("^" signed power)?       atom: number | "pi" | "(" sum ")" | root(n, sum) | binom(n; k)

Nothing here can run long: depth, exponents, factorials and the size of every intermediate value are bounded.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

from nex_merge.answers.tokens import Token, spelled

Value = Fraction | float
_DEPTH, _BITS, _FACTORIAL = 30, 1400, 150
_CONSTANTS = {"pi": math.pi}


class TooLarge(Exception):
    """An expression that is not worth its computation, or has no value."""


class Expression:
    """A reader of one expression; `at` is the token after what was read so far."""

    def __init__(self, tokens: Sequence[Token], at: int, factorials: bool) -> None:
        self.tokens, self.at, self.factorials, self.depth = tokens, at, factorials, 0
        self.computed = False  # whether an operator was applied

    def read(self) -> Value | None:
        """The value; None if no expression begins here. Raises TooLarge."""
        try:
            return self._sum()
        except (OverflowError, ZeroDivisionError, ValueError):
            raise TooLarge from None

    def _text(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead].text if self.at + ahead < len(self.tokens) else ""

    def _glued(self) -> bool:
        """Whether no space stands before the next token."""
        return 0 < self.at < len(self.tokens) and self.tokens[self.at].start == self.tokens[self.at - 1].end

    def _sum(self) -> Value | None:
        self.depth += 1
        if self.depth > _DEPTH:
            raise TooLarge
        total = self._signed(self._product)
        while total is not None and self._text() in ("+", "-") and self._text():
            mark, sign = self.at, self._text()
            # "3 -5" are two numbers, not a difference; "12-year" is a word.
            self.at += 1
            term = self._product()
            if term is None:
                self.at = mark
                break
            total = _bounded(total + term if sign == "+" else total - term)
            self.computed = True
        self.depth -= 1
        return total

    def _signed(self, read) -> Value | None:
        mark, sign = self.at, 1
        while self._text() in ("+", "-") and self._text() and self.at - mark < 2:
            sign = -sign if self._text() == "-" else sign
            self.at += 1
        value = read()
        if value is None:
            self.at = mark
            return None
        return sign * value

    def _product(self) -> Value | None:
        total = self._power()
        while total is not None:
            mark, operator = self.at, self._text()
            if operator in ("*", "/") and operator:
                self.at += 1
                factor = self._signed(self._power)
            elif self._multiplies_implicitly():
                operator, factor = "*", self._power()
            else:
                break
            if factor is None:
                self.at = mark
                break
            total = _bounded(total * factor if operator == "*" else total / factor)
            self.computed = True
        return total

    def _multiplies_implicitly(self) -> bool:
        """2(3 + 4), 3 pi, 2 sqrt(3), (2)(3), 3!3!."""
        text = self._text()
        after_factorial = text.isdigit() and self.factorials and self.tokens[self.at - 1].text == "!"
        return text in ("pi", "root", "sqrt", "binom") or (text == "(" and self._glued()) or after_factorial

    def _power(self) -> Value | None:
        base = self._mixed() or self._atom()
        if base is None:
            return None
        while self.factorials and self._text() == "!" and isinstance(base, Fraction):
            if base.denominator != 1 or not 0 <= base <= _FACTORIAL:
                raise TooLarge
            base, self.computed = Fraction(math.factorial(int(base))), True
            self.at += 1
        if self._text() == "^":
            self.at += 1
            self.depth += 1
            if self.depth > _DEPTH:
                raise TooLarge
            exponent = self._signed(self._power)
            self.depth -= 1
            if exponent is None:
                raise TooLarge
            self.computed = True
            return _power(base, exponent)
        return base

    def _mixed(self) -> Value | None:
        """A mixed number: 2 1/2, 2 and 1/2, or 2 ((1)/(2)) of LaTeX."""
        whole = self._integer(0)
        if whole is None:
            return None
        joined = self._text(1) == "and"
        texts = [self._text(i + joined) for i in range(1, 10)]
        if texts == ["(", "(", texts[2], ")", "/", "(", texts[6], ")", ")"]:
            top, bottom, length = self._integer(3 + joined), self._integer(7 + joined), 10 + joined
        elif len(texts) > 2 and texts[1] == "/" and texts[0].isdigit():
            top, bottom, length = self._integer(1 + joined), self._integer(3 + joined), 4 + joined
        else:
            return None
        if top is None or bottom is None or not 0 < top < bottom:
            return None
        self.at += length
        self.computed = True
        return whole + top / bottom

    def _integer(self, ahead: int) -> Fraction | None:
        i = self.at + ahead
        token = self.tokens[i] if i < len(self.tokens) else None
        return token.value if token and token.value is not None and token.text.isdigit() else None

    def _atom(self) -> Value | None:
        text = self._text()
        if not text:
            return None
        if text in _CONSTANTS:
            self.at += 1
            return _CONSTANTS[text]
        if text in ("root", "sqrt"):
            return self._root()
        if text == "binom":
            return self._binomial()
        if text == "(":
            return self._bracket()
        found = spelled(list(self.tokens[self.at : self.at + 12]), 0)
        if found is None:
            return None
        self.at += found[1]
        return found[0]

    def _bracket(self) -> Value | None:
        mark = self.at
        self.at += 1
        value = self._sum()
        if value is None or self._text() != ")":
            self.at = mark
            return None
        self.at += 1
        return value

    def _binomial(self) -> Value | None:
        mark = self.at
        self.at += 2  # "binom", "("
        top = self._sum()
        self.at += 1  # ";"
        chosen = self._sum() if top is not None else None
        if top is None or chosen is None or self._text() != ")":
            self.at = mark
            return None
        self.at += 1
        if not (_is_whole(top) and _is_whole(chosen) and 0 <= chosen <= top <= _FACTORIAL):
            raise TooLarge
        self.computed = True
        return Fraction(math.comb(int(top), int(chosen)))

    def _root(self) -> Value | None:
        mark, degree = self.at, Fraction(2)
        self.at += 1
        if self.tokens[mark].text == "root":
            degree = self._integer(1)
            self.at += 3  # "(", degree, ","
            value = self._sum() if degree else None
            closed = self._text() == ")"
            self.at += closed
        else:
            value, closed = self._atom(), True
        if value is None or not closed or degree is None or value < 0:
            self.at = mark
            return None
        self.computed = True
        return _power(value, 1 / degree)


def _is_whole(value: Value) -> bool:
    return isinstance(value, Fraction) and value.denominator == 1


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(exponent, Fraction) and exponent.denominator == 1 and isinstance(base, Fraction):
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(exponent) * size > _BITS:
            raise TooLarge
        return base ** int(exponent)
    if base < 0:
        raise TooLarge
    value = float(base) ** float(exponent)
    # A root that is rational: 16^(1/2), (9/4)^(1/2).
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator <= 9 and value < 1e15:
        near = Fraction(value).limit_denominator(10**6)
        degree, times = exponent.denominator, abs(exponent.numerator)
        if times <= _FACTORIAL and near > 0 and near**degree == base ** (times if exponent > 0 else -times):
            return near
    return _bounded(value)


def _bounded(value: Value) -> Value:
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > 2 * _BITS:
            raise TooLarge
    elif not math.isfinite(value):
        raise TooLarge
    return value
