"""Where a response stops answering and goes on with a question of its own, or with another turn of a conversation.

Models that were not taught when to stop write the next question as well; what they answer to it is not the answer. A
question that is the first thing said is the one that was asked, said again.
"""

import re
from functools import lru_cache
from itertools import islice

from nex_merge.answers.announcements import alternatives
from nex_merge.answers.thinking import thoughts

_ANSWERER = "assistant|model|chatbot|bot|ai|gpt"
_ASKER = "user|human|prompter|system|tool|ipython|instruction|question"


def _turn(roles: str) -> str:
    """The mark of a chat template that begins a turn of one of these."""
    return (
        r"(?:<[|｜]?/?(?:(?:im_start|start|start_header_id|start_of_role|start_of_turn|turn|START_OF_TURN_TOKEN)[|｜]?>)?"
        rf"\s?(?:<?[|｜])?(?:{roles})(?:_TOKEN)?\b(?:[|｜]?>|<[|｜]\w{{1,20}}[|｜]>)?|\[[|｜](?:{roles})[|｜]\])"
    )


# The end of a turn, or a mark without a role.
_END = (
    r"<[|｜/]?(?:im_start|im_end|im_sep|start|end|return|eos|eod|eot|eot_id|eom_id|eou|endof(?:turn|text|user|assistant)"
    r"|(?:begin|start|end)[_▁]?of[_▁]?(?:text|turn|sentence|message|utterance|sequence)|END_OF_TURN_TOKEN"
    r"|start_header_id|end_header_id|start_of_role|s|bos|pad|turn)[|｜]?>|<turn[|｜]>|\[[|｜]?(?:EOS|endofturn)[|｜]?\]"
)
_EXAMPLE = "example|exemple|ejemplo|beispiel|esempio|exemplo|пример|ví dụ|例|예"
_ANOTHER = r"(?:next|another|new|second|follow-up|similar|final)\s"
_NUMBER = r"\s?[#№]?\s?\d{1,3}"
_ASKS = (
    rf"(?:{_ANOTHER})?(?:{alternatives('question')}|{alternatives('user')})(?:{_NUMBER})?|(?:{_EXAMPLE}){_NUMBER}"
    rf"|(?-i:Q)(?:{_NUMBER})?|{_ANOTHER}(?:one|example)"
    r"|(?:now,? )?(?:here(?: is|'s)|let's (?:try|do|solve)|consider) "
    r"(?:another|a similar|a new) (?:question|problem|example|one)"
)
_ANSWERS = rf"{_ANSWERER}|response|output|(?-i:A)(?:{_NUMBER})?"
_LINE = r"(?:^|(?<=[.!?。？！][ \t]))[ \t>*_\-]{0,8}(?:\#{1,6}[ \t]*|\[)?[*_]{0,3}"
_COLON = r"(?:[*_]{0,3}\s?[:：]|\])"
# What is left of a turn's mark where a tokenizer has dropped the signs around its role: "It is 7.user\n".
_BARE = r"(?-i:(?:^|(?<=[.!?)}}\d])){}[ \t]*\n)"
_MARK = re.compile(
    rf"(?P<answers>{_turn(_ANSWERER)}|\[/INST\]|<</SYS>>|{_LINE}(?:{_ANSWERS}){_COLON}[*_]{{0,3}}"
    rf"|{_BARE.format('assistant')})"
    rf"|(?P<asks>{_turn(_ASKER)}|\[INST\]|<<SYS>>|{_LINE}(?:(?:{_ASKS}){_COLON}|(?-i:Q)\.\s)|{_BARE.format('(?:user|human)')}"
    rf"|^\#{{1,6}}[ \t]*[*_]{{0,3}}(?:{_ASKS})[*_]{{0,3}}[ \t]*$"
    rf"|^[*_]{{0,3}}(?:{alternatives('question')}){_NUMBER}\.?[*_]{{0,3}}[ \t]*$)"
    rf"|(?P<says>{_LINE}(?:(?:final |correct )?(?:{alternatives('answer')})|solution|答案?|答え){_COLON}"
    r"|\#\#\#\#|\\boxed)"
    rf"|(?P<ends>{_END})",
    re.IGNORECASE | re.MULTILINE,
)
# Where a mark can begin; looked for first, because it is faster.
_PLACE = re.compile(r"^|(?<=[.!?。？！][ \t])|[<\[]|\#\#\#\#|\\boxed|(?:user|human|assistant)[ \t]*$", re.MULTILINE)
_PLACES = 4_000  # of which so many are looked at
# What wraps an answer and says nothing: <|begin_of_solution|>, <output>.
_WRAPPING = re.compile(
    r"<[|｜](?:begin|start|end)[_▁](?:of[_▁])?(?:solution|response|answer|output|box|text|action)[|｜]>"
    r"|</?(?:output|response|solution|final|conclusion|summary)>",
    re.IGNORECASE,
)
_BRACKETS = "<["
# What leads to the question that was asked, and answers nothing: "Sure! Let's solve this problem step by step."
_LEADS = re.compile(
    r"[^\d\n]{0,160}(?:\b(?:question|problem|solve|let['’]s|let me|restat\w+|sure|okay|certainly|of course"
    r"|task|first)\b"
    r"|:\s*\Z)[^\d]{0,160}",
    re.IGNORECASE,
)


@lru_cache(maxsize=1024)  # of a response, several questions are asked one after the other
def first_turn(text: str) -> str:
    """A response up to where it asks something itself, without the marks of its own turn."""
    begin, end = 0, len(text)
    said, asked, before = False, "", 0
    outside = _without_thoughts(text)
    for place in islice(_PLACE.finditer(outside), _PLACES):
        mark = _MARK.match(outside, place.start()) if place.start() >= before else None
        if mark is None:
            continue
        piece = outside[before : mark.start()].strip()
        if asked:
            # Behind the first line of a question that is said again, its answer may follow without a mark.
            piece = "" if asked in _BRACKETS else piece.partition("\n")[2].strip()
        said = said or (bool(piece) and _LEADS.fullmatch(piece) is None)
        before = mark.end()
        if mark["says"]:
            asked, said = "", True
        elif said:
            if not mark["answers"] or mark.group()[0] in _BRACKETS or mark.group()[-1] == "\n":
                end = mark.start()
                break
        elif mark["asks"]:
            asked = mark.group()[0]
        elif mark["answers"] and (asked or mark.group()[0] in _BRACKETS):
            asked, begin = "", mark.end()
        elif mark["ends"] and not asked and not piece:
            begin = mark.end()
    return _WRAPPING.sub("", text[begin:end]).strip()


def _without_thoughts(text: str) -> str:
    """The text with blanks in place of its thinking."""
    parts, at = [], 0
    for start, end in thoughts(text)[0]:
        parts += [text[at:start], " " * (end - start)]
        at = end
    return "".join(parts) + text[at:]
