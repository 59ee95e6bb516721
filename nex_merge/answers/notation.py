"""Text as people and models write it -> plain characters: Unicode and LaTeX spellings of one thing become one.

`1\\,250` and `1 250`, `−3` and `-3`, `\\dfrac34` and `((3)/(4))`, `10²³` and `10^(23)`. Knows nothing of values.
"""

import re
import unicodedata

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
# Vulgar fractions; a whole number right before one makes a mixed number: 2½ is 2 1/2.
_VULGAR = re.compile(r"(\d?)([¼-¾⅐-⅞↉])")
_EN_DASH_RANGE = re.compile(r"(?<=[\d%°])\s?[–—]\s?(?=[\d$€£])|(?<=[a-z])–(?=\d)")
_CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "‐": "-", "‑": "-", "﹣": "-", "－": "-", "—": " : ",
        "×": "*", "·": "*", "⋅": "*", "∙": "*",
        "∗": "*", "÷": "/", "⁄": "/", "∕": "/", "≃": "≈", "≅": "≈", "≡": "=", "→": "=", "⇒": "=", "’": "'",
        "‘": "'", "“": '"', "”": '"', "٫": ".", "٬": ",", "≤": "<", "≥": ">", 
        "√": " sqrt ", "π": " pi ", "∞": " infinity ",
        "\u200b": "", "\u200c": "", "\u200d": "", "\u2060": "", "\ufeff": "", "\u00ad": "",
    }
)  # fmt: skip
# LaTeX, in the order in which it is replaced.
_LATEX = [
    (re.compile(r"\\!|\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits|quad|qquad|,\\!)(?![A-Za-z])\.?"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;: ]|~|\\\\"), " "),
    (re.compile(r"\\[()\[\]]"), " "),
    (re.compile(r"\\([$%&#_{}])"), r"\1"),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\[dt]binom(?![A-Za-z])"), r"\\binom"),
    (re.compile(r"\{\s*(\w+)\s*\\choose\s*(\w+)\s*\}"), r"\\binom{\1}{\2}"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?"), "°"),
    (re.compile(r"\\(?:times|cdot|ast)(?![A-Za-z])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\\(?:approx(?:eq)?|simeq|cong)(?![A-Za-z])"), "≈"),
    (re.compile(r"\\(?:equiv|to|rightarrow|Rightarrow|implies)(?![A-Za-z])"), "="),
    (re.compile(r"\\(?:geq?|gt|leq?|lt)(?![A-Za-z])"), "<"),
    (re.compile(r"\\(?:pm|mp)(?![A-Za-z])"), "±"),
]
# 0.1\overline{6}: a repeating decimal.
_REPEATING = re.compile(r"(\d{0,9})\.(\d{0,9})\\overline\s*\{(\d{1,9})\}")
# Commands whose argument is plain text, as \text{ cm}.
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox|boldsymbol|bm|operatorname)\s*\{([^{}]*)\}"
)
_SHORT = re.compile(r"\\(?:bf|rm|it)(?![A-Za-z])")
# \frac34, \frac{3}4, \frac 3 4: arguments without braces get them.
_FRAC_FIRST = re.compile(r"\\frac\s*([0-9A-Za-z])")
_FRAC_SECOND = re.compile(r"(\\frac\s*\{[^{}]*\})\s*([0-9A-Za-z])")
_FRAC = re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_BINOM = re.compile(r"\\binom\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_ROOT = re.compile(r"\\sqrt\s*(?:\[\s*(\d)\s*\])?\s*(?:\{([^{}]*)\}|([0-9A-Za-z]))")
_BRACED = re.compile(r"([\^_])\s*\{([^{}]*)\}")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_NESTING = 12  # rounds in which fractions, roots and exponents are opened from the inside
# The base of a logarithm, which is no value of its own.
_BASE = re.compile(r"\blog\s*_\s*(?:\(\w+\)|\w)")
# Python's power; markdown's bold otherwise.
_POWER = re.compile(r"(?<=[\d)])\*\*(?=[\d(-])")
_MARKDOWN = re.compile(r"\*\*|__|`+")
_CHOOSE = re.compile(r"(?<![\d.,])(\d{1,3})\s+choose\s+(\d{1,3})(?![\d.,]*\d)")
_TIMES = re.compile(r"(?<=\d)\s*[xX]\s*(?=\d)")
# "$5k", "€3.2M"
_ABBREVIATED = re.compile(r"([$€£]\s?\d[\d.,]*)\s?(k|m|bn?)(?![A-Za-z])", re.IGNORECASE)
_SCALES = {"k": " thousand", "m": " million", "b": " billion", "bn": " billion"}
# A decimal comma is one only with currency, percent or a unit: "3,50 €", "€3,50", "2,5 kg".
_UNIT_AFTER = r"(?=\s?(?:€|EUR\b|%|°|(?:[mckd]?m|k?g|mg|m?l|L|h|s|min|km/h|Euros?|euros?)\b))"
_DECIMAL_COMMA = re.compile(rf"(?<![\d.,])(\d+),(\d{{1,2}}){_UNIT_AFTER}|€\s?(\d+),(\d{{1,2}})(?![\d,])")
# 1.250 € has no three decimals.
_DOTTED_MONEY = re.compile(r"(?<![\d.,])([1-9]\d{0,2})\.(\d{3})(?=\s?(?:€|EUR\b|[Ee]uros?\b|₫|đồng\b|VND\b|Kč|zł))")
_CURRENCY_CODE = re.compile(
    r"\b(?:US|USD|EUR|GBP|CHF|INR|Rs\.?|CA|AU)(?=\s?[$€£]?\d)|\b(?:C|A|R|S|NZ|HK)(?=\$\d)", re.IGNORECASE
)
_CURRENCY = re.compile(r"([-+]\s?)?[$€£¥₹₽₩¢]")


def unicode_plain(text: str) -> str:
    """One spelling for characters that look or mean alike: digits of any script, spaces, minus signs, fractions."""
    if text.isascii():
        return text
    text = _RAISED.sub(lambda found: f"^({found.group().translate(_SUPERSCRIPTS)})", text)
    text = _VULGAR.sub(lambda found: found[1] + " " * bool(found[1]) + unicodedata.normalize("NFKC", found[2]), text)
    text = _EN_DASH_RANGE.sub("\x00", text.replace("…", "...")).translate(_CHARACTERS)
    text = unicodedata.normalize("NFKC", text).replace("\x00", " … ").translate(_CHARACTERS)
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() and not c.isascii() else c for c in text)


def unmarked(text: str) -> str:
    """A text in plain characters, without LaTeX and markdown."""
    text = unicode_plain(text)
    if "\\" in text or "{" in text:
        text = _without_latex(text)
    if "*" in text or "_" in text or "`" in text:
        text = _MARKDOWN.sub("", _POWER.sub("^", text))
    return text


def plain(text: str) -> str:
    """A sentence in plain characters, without LaTeX, markdown and currency signs."""
    text = unmarked(text)
    if "x" in text or "X" in text or "log" in text:
        text = _BASE.sub("log", _TIMES.sub("*", text))
    if "choose" in text:
        text = _CHOOSE.sub(r"binom(\1; \2)", text)
    has_currency = _CURRENCY.search(text) is not None
    if has_currency:
        text = _ABBREVIATED.sub(lambda found: found[1] + _SCALES[found[2].lower()], text)
    if "," in text:
        text = _DECIMAL_COMMA.sub(lambda found: f"{found[1] or found[3]}.{found[2] or found[4]}", text)
    text = _DOTTED_MONEY.sub(r"\1\2", text)
    text = _CURRENCY_CODE.sub(" ", text)
    if not has_currency:
        return text
    return _CURRENCY.sub(lambda found: (found[1] or "").strip() or ("" if found.group() == "$" else " "), text)


def _repeating(found: re.Match[str]) -> str:
    whole, once, again = found.groups()
    top = int(whole + once + again) - int(whole + once or "0")
    return f" (({top})/({10 ** len(once) * (10 ** len(again) - 1)})) "


def _without_latex(text: str) -> str:
    text = _REPEATING.sub(_repeating, text)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    text = _SHORT.sub("", text)
    text = _FRAC_FIRST.sub(r"\\frac{\1}", text)
    for _ in range(_NESTING):
        before = text
        text = _TEXT.sub(r" \1 ", text)
        text = _FRAC_SECOND.sub(r"\1{\2}", text)
        text = _BRACED.sub(r"\1(\2)", text)
        text = _ROOT.sub(lambda found: f" root({found[1] or 2}, {found[2] or found[3]}) ", text)
        text = _FRAC.sub(r" ((\1)/(\2))", text)
        text = _BINOM.sub(lambda found: f" binom({found[1] or found[2]}; {found[3] or found[4]}) ", text)
        if text == before:
            break
    return _COMMAND.sub(r" \1 ", text)
