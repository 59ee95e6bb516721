"""Words that many messages need: a number with its noun."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, `1 sample`, `2 samples`, `1,024 samples`; `plural` where it is not noun + s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
