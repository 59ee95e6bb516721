"""Whether responses in a file were cut off, from what servers and harnesses write beside them. Knows no texts.

OpenAI's, Anthropic's, Google's, Mistral's and Ollama's interfaces, vLLM, TGI, SGLang and llama.cpp name the reason for
which a response ended, at the top of a line or within what they returned (`choices[0].finish_reason`).
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nex_merge.errors import InputError
from nex_merge.setup.yaml_files import as_yaml
from nex_merge.wording import counted

# Keys and values are compared in small letters, without underscores and the like.
_FLAGS = ("truncated", "istruncated", "stoppedlimit")
_REASONS = ("finishreason", "finishreasons", "stopreason", "stopreasons", "donereason", "stoptype", "incompletedetails")
_CUT = {
    "length", "limit", "maxtokens", "maxlength", "maxlen", "maxnewtokens", "maxoutputtokens", "maxcompletiontokens",
    "modellength", "tokenlimit", "contextlength", "contextlengthexceeded", "modelcontextwindowexceeded", "incomplete",
    "truncated", "pauseturn", "abort", "aborted", "cancelled", "error", "timeout", "contentfilter", "contentfiltered",
    "safety", "recitation",
}  # fmt: skip
_ENDED = {
    "stop", "eos", "eostoken", "endoftext", "endturn", "stopsequence", "stoptoken", "stopword", "word", "complete",
    "completed", "finished", "done", "toolcalls", "tooluse", "functioncall", "refusal", "none", "null", "",
}  # fmt: skip
# Enumerations write their own name before the value: FinishReason.MAX_TOKENS, FINISH_REASON_LENGTH.
_PREFIX = re.compile(r"^(?:finish|stop)?_?reason[._]", re.IGNORECASE)
# Where what was returned is kept, one entry for each response.
_RETURNED = ("choices", "candidates", "generations", "outputs")
_CONTENT = ("prompt", "messages", "response", "responses", "answer", "options")


@dataclass
class Endings:
    """What the lines of a file say of the ends of responses, for notes."""

    contradictory: int = 0  # responses of which one key says that they were cut, another that they were not
    example: str = ""
    unknown: Counter[str] = field(default_factory=Counter)  # reasons that are not known

    def notes(self, source: str) -> Iterator[str]:
        """Sentences that begin with `source`."""
        if self.contradictory:
            what = counted(self.contradictory, "response")
            yield f"{source}: {what} with contradictory ends ({self.example}); they count as cut off"
        for reason, count in self.unknown.items():
            what = counted(count, "response")
            yield f"{source}: finish_reason {reason!r} of {what} is not known; they count as ended by themselves"


def read_cut(data: Mapping[str, Any], where: str, count: int, seen: Endings) -> tuple[bool, ...]:
    """Whether each of a line's `count` responses was cut off, by `truncated` or a reason such as `length`.

    What is said once holds for all. Raises InputError, naming `where`, if there is one for each response and their
    numbers differ, or `truncated` is neither true nor false.
    """
    stated: dict[str, list[bool | None]] = {}
    _collect(data, "", where, count, stated, seen)
    found = []
    for i in range(count):
        said = {key: values[i % len(values)] for key, values in stated.items()}
        if len(set(said.values()) - {None}) > 1:
            seen.contradictory += 1
            by = {value: key for key, value in said.items()}
            seen.example = seen.example or f"{by[False]} says that it ended, {by[True]} that it was cut"
        found.append(True in said.values())
    return tuple(found)


def _collect(
    data: Mapping[str, Any], path: str, where: str, count: int, stated: dict[str, list[bool | None]], seen: Endings
) -> None:
    for key, value in data.items():
        name, place = _plain(key), f"{path}{key}"
        if name in _FLAGS:
            _state(place, [_flag(item, f"{where}: {place}") for item in _listed(value)], where, count, stated)
        elif name in _REASONS:
            _state(place, [_reason(item, name, seen) for item in _listed(value)], where, count, stated)
        elif isinstance(value, Mapping) and key not in _CONTENT:
            _collect(value, f"{place}.", where, count, stated, seen)
        elif isinstance(value, list) and key not in _CONTENT:
            entries = [item for entry in value for item in _listed(entry) if isinstance(item, Mapping)]
            parts: list[dict[str, list[bool | None]]] = [{} for _ in entries]
            for entry, part in zip(entries, parts, strict=True):
                _collect(entry, "", where, 1, part, seen)
            if any(parts) and (len(parts) == count or key in _RETURNED):
                for inner in dict.fromkeys(inner for part in parts for inner in part):
                    values = [part.get(inner, [None])[0] for part in parts]
                    _state(f"{place}[].{inner}", values, where, count, stated)


def _state(place: str, values: list[bool | None], where: str, count: int, stated: dict[str, list[bool | None]]) -> None:
    if len(values) not in (1, count):
        raise InputError(f"{where}: {place}: expected one for each of {counted(count, 'response')}, got {len(values)}")
    stated[place] = values


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) and value else [value]


def _flag(value: Any, place: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{place}: expected true or false, got {as_yaml(value)[:60]}")
    return value


def _reason(value: Any, key: str, seen: Endings) -> bool | None:
    """True: cut off; False: ended by itself; None: it doesn't say."""
    if isinstance(value, Mapping):
        value = value.get("type", value.get("reason"))
    if not isinstance(value, str):  # a stop token's id, or nothing
        return None
    plain = _plain(_PREFIX.sub("", value.strip()))
    if plain in _CUT:
        return True
    if plain not in _ENDED and key.startswith("finish"):  # elsewhere it may be the stop sequence itself
        seen.unknown[value[:40]] += 1
    return False if plain in _ENDED and plain not in ("", "none", "null") else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()
