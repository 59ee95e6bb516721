"""Chinese, Japanese and Korean text -> blanks where words meet digits and letters, and its numbers in digits.

`共18个` and `共 18 个`, `3万5千` and `35000`, `三分之一` and `1/3`. Knows nothing of which number is the conclusion.
"""

import re
from decimal import Decimal

_SCRIPT = "\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_ANY = re.compile(f"[{_SCRIPT}\uff01-\uff5e]")
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_MEETS = re.compile(rf"(?<=[{_SCRIPT}])(?=[A-Za-z0-9$\\.+(-])|(?<=[A-Za-z0-9%)])(?=[{_SCRIPT}])")
_ONES = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
_SMALL = {"十": 10, "百": 100, "千": 1000, "천": 1000, "백": 100}
_LARGE = {"万": 10**4, "萬": 10**4, "만": 10**4, "亿": 10**8, "億": 10**8, "억": 10**8, "兆": 10**12, "조": 10**12}
_ONE = "[" + "".join(_ONES) + "]"
_DIGITS = r"\d[\d,]*(?:\.\d+)?"
# 5千克 and 3千米 are 5 kg and 3 km; 百分 is a percent; 兆 is a mega but for money.
_SCALE = r"(?:[十百千](?![克米瓦卡赫伏帕分])|[万萬亿億만억]|[천백](?=\s?[만억원명개])|[兆조](?=\s?[円元圆圓원\d]))"
_WITH_DIGITS = re.compile(rf"{_DIGITS}\s?{_SCALE}(?:\s?(?:{_DIGITS})?\s?{_SCALE})*(?:\s?\d+(?![\d.,]*\s?[月日년월%]))?")
# Begins with a digit or ten, holds a unit: 十八, 三百六十五, 两万三千; not 十分, 千万, 万一, nor the month 十一月.
_IN_WORDS = re.compile(
    rf"(?:(?:{_ONE}[十百千万萬亿億]|十{_ONE})(?:{_ONE}|[十百千万萬亿億])*|十(?=[个個只元円人块本]))(?![月分号號])"
)
_PART = re.compile(rf"({_ONE}|十|\d+)\s*分[之の]\s*({_ONE}|十|\d+)|(\d+)\s*분의\s*(\d+)")
_PERCENT = re.compile(rf"百分之((?:{_ONE}|[十百])+|\d+(?:\.\d+)?)")
_DATE = re.compile(r"(\d{2,4})\s*[年년]\s*(\d{1,2})\s*[月월](?:\s*(\d{1,2})\s*[日号號일])?")
_TIME = re.compile(r"(\d{1,2})\s*[时時点點시]\s*(\d{1,2})\s*[分분]")
# One digit alone is a word of many others; it counts where nothing else is a number and it is stated.
_STATED = re.compile(
    rf"(?:是|为|為|剩下?|共|[等于於]于|[:=]|は)\s*({_ONE}|十)(?=\s*(?:[个個只隻元円块塊人名本支条张張天次岁歲つ匹枚颗顆]|[。,.]|です|$))",
    re.MULTILINE,
)


def spaced(text: str) -> str:
    """Such a text with plain punctuation, blanks between words and digits, and numbers in digits; others unchanged."""
    if text.isascii() or _ANY.search(text) is None:
        return text
    text = text.translate(_FULL_WIDTH)
    text = _DATE.sub(lambda found: f"{found[1]}/{found[2]}/{found[3] or 1}", _TIME.sub(r"\1:\2", text))
    text = _PERCENT.sub(lambda found: f"{_value(found[1])}%", text)
    text = _PART.sub(lambda found: f"{_value(found[2] or found[4])}/{_value(found[1] or found[3])}", text)
    text = _IN_WORDS.sub(
        lambda found: _value(found.group()), _WITH_DIGITS.sub(lambda found: _value(found.group()), text)
    )
    if re.search(r"\d", text) is None:
        text = _STATED.sub(lambda found: found.group()[: found.start(1) - found.start()] + _value(found[1]), text)
    return _MEETS.sub(" ", text)


def _value(written: str) -> str:
    """The digits of a number such as 3万5千, 一百零五, 一百二."""
    total, section, number, unit, zero = Decimal(0), Decimal(0), None, 1, False
    for part in re.findall(r"[\d.]+|\S", written.replace(",", "")):
        if part in _SMALL:
            unit, zero = _SMALL[part], False
            section, number = section + (1 if number is None else number) * unit, None
        elif part in _LARGE:
            unit, zero = _LARGE[part], False
            section, number = section + (number or 0), None
            total, section = (total + section * unit if section else total * unit), Decimal(0)
        else:
            number = Decimal(str(_ONES.get(part, part)))
            zero = zero or number == 0 or part not in _ONES
    # 一百二 is 120, 一百零二 is 102.
    last = Decimal(0) if number is None else number if zero or unit == 1 else number * unit / 10
    return f"{(total + section + last).normalize():f}"
