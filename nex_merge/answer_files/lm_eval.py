"""Samples that lm-eval writes (`--log_samples`) -> prompts, responses and known answers. Knows its format, of 0.4.13.

A line is a document under a filter: a document has a line for each filter, all with the same responses (`resps`) and
each with what its filter made of them (`filtered_resps`). Documents are matched across models by their task and by
lm-eval's hash of what they hold, because models with other chat templates are asked in other words.
"""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

from nex_merge.answer_files.lines import AnswerFile, KnownAnswer, Order, Prompts, keep_choices
from nex_merge.answer_files.sources import Source
from nex_merge.errors import InputError
from nex_merge.records import Observation, Response
from nex_merge.setup.textfiles import check_unicode, collect, read_jsonl
from nex_merge.setup.yaml_files import as_yaml
from nex_merge.wording import counted

MOST_OPTIONS = 26  # an option is a letter
# What lm-eval's filters by regular expressions write where nothing matches: no conclusion, rather than the same one.
_UNMATCHED = "[invalid]"
# Requests for the options alone follow those for the options after their prompt if this metric is asked for.
_TWICE = "acc_mutual_info"
_LISTED = 3


@dataclass
class _Task:
    """What is read of one file."""

    name: str
    file: Path
    texts: dict[int, list[str]] = field(default_factory=dict)  # by prompt
    orders: dict[tuple[int, int], Order] = field(default_factory=dict)
    seen: dict[tuple[int, str], str] = field(default_factory=dict)  # by document and filter: the line
    read: set[int] = field(default_factory=set)  # documents
    settings: dict[str, str] = field(default_factory=dict)


def read_samples(source: Source, prompts: Prompts, chosen: str | None) -> AnswerFile:
    """Read one model's samples, and add their documents and targets to `prompts`.

    `chosen`: the filter of which the results are read; None: the responses themselves. Raises InputError, naming file
    and line, for whatever can't be read.
    """
    observed, orders, settings, notes = {}, {}, {}, []
    for name, file in source.tasks.items():
        task = _Task(name, file)
        collect(read_jsonl(file), lambda where, data, task=task: _read_line(where, data, task, prompts, chosen))
        filters = list(dict.fromkeys(filter_name for _, filter_name in task.seen))
        if chosen is not None and filters and chosen not in filters:
            of = f"{name} (it has {', '.join(filters)}; of several tasks, name the files of those that have it)"
            raise InputError(f"--filter: {file}: no filter {chosen!r} in the samples of {of}")
        if not task.texts:
            raise InputError(f"{file}: expected at least one document, got none")
        responses = [
            Response(number, sample, (), (), text, False)  # lm-eval doesn't say which were cut off
            for number in sorted(task.texts)
            for sample, text in enumerate(task.texts[number])
        ]
        if repeated := len(task.read) - len(task.texts):
            what = counted(repeated, "document is", "documents are")
            notes.append(f"{file}: {what} the same as others, and their responses count as samples of those")
        observed[name], settings[name] = Observation(responses), task.settings
        orders |= task.orders
    return AnswerFile(observed, orders, tuple(notes), settings)


def listed(tasks: Sequence[str]) -> str:
    """Names of tasks, the first three of many: MMLU has 57."""
    more = len(tasks) - _LISTED
    return ", ".join(tasks[:_LISTED]) + (f" and {counted(more, 'more task')}" if more > 0 else "")


def differences(read: Mapping[str, AnswerFile], prompts: Prompts, kept: Set[int]) -> Iterator[str]:
    """Notes on models that were asked differently, and on targets that are no known answers, by task."""
    if reworded := [prompts.tasks[p] for p in sorted(prompts.reworded & kept)]:
        what = counted(len(reworded), "prompt is not the same text", "prompts are not the same texts")
        where = listed(list(dict.fromkeys(reworded)))
        yield f"{where}: {what} for all models (chat template, system prompt or examples differ)"
    found: dict[str, list[str]] = {}  # by what is said, the tasks
    for task in dict.fromkeys(task for one in read.values() for task in one.settings):
        settings = {name: one.settings[task] for name, one in read.items() if task in one.settings}
        for key in dict.fromkeys(key for given in settings.values() for key in given):
            first: dict[str, str] = {}  # by value, the first model with it
            for name, given in settings.items():
                first.setdefault(given.get(key, "not set"), name)
            if len(first) > 1:
                told = ", ".join(f"{value} for {name}" for value, name in first.items())
                found.setdefault(f"models were run with different settings: {key} is {told}", []).append(task)
    for said, tasks in found.items():
        yield f"{listed(tasks)}: {said}"
    if unread := [task for p, task in sorted(prompts.unread.items()) if p in kept]:
        what = counted(len(unread), "target is no single answer", "targets are no single answers")
        yield f"{listed(list(dict.fromkeys(unread)))}: {what} that can be read, and left out of the audit"


def _read_line(where: str, data: Mapping[str, Any], task: _Task, prompts: Prompts, chosen: str | None) -> None:
    document, name = _field(data, "doc_id", int, where), _field(data, "filter", str, where)
    if (earlier := task.seen.setdefault((document, name), where)) != where:
        raise InputError(f"{where}: expected each document once for each filter, got doc_id {document} as in {earlier}")
    if (document in task.read) if chosen is None else (name != chosen):
        return
    task.read.add(document)
    asked = [_mapping(value, f"{where}: arguments") for value in _field(data, "arguments", dict, where).values()]
    is_scored = bool(asked) and isinstance(asked[0].get("arg_1"), str)
    if not is_scored and not (len(asked) == 1 and isinstance(asked[0].get("arg_1"), Mapping)):
        raise InputError(
            f"{where}: task {task.name}: expected responses, or log-likelihoods of options, got neither: perplexities "
            "conclude nothing that models could agree on"
        )
    _check_kind(task, is_scored, prompts)
    number = prompts.number_of(json.dumps([task.name, _field(data, "doc_hash", str, where)]), task.name)
    prompts.see_wording(number, data.get("prompt_hash"))
    given = _list(data, "resps" if chosen is None else "filtered_resps", len(asked), where)
    if is_scored:
        texts, order, options = _read_scored(where, data, asked, given, number, prompts)
        target = _letter_of(data.get("target"), options)
    else:
        texts, order, options = _read_generated(where, given[0]), None, ()
        target = _text_of(data.get("target"))
        made = {**asked[0]["arg_1"], "repeats": len(texts)} if chosen is None else asked[0]["arg_1"]
        task.settings = task.settings or {key: json.dumps(value) for key, value in made.items()}
    if target is None:
        prompts.unread[number] = task.name
    else:
        prompts.add_answer(KnownAnswer(where, number, target, (), order, True))
    samples = task.texts.setdefault(number, [])
    task.orders.update({(number, len(samples) + i): order for i in range(len(texts)) if order is not None})
    samples.extend(texts)


def _check_kind(task: _Task, is_scored: bool, prompts: Prompts) -> None:
    earlier, file = prompts.scored.setdefault(task.name, (is_scored, str(task.file)))
    if earlier != is_scored:
        kinds = {True: "log-likelihoods of options", False: "responses"}
        raise InputError(f"{task.file}: expected {kinds[earlier]}, as in {file}, got {kinds[is_scored]}")


def _read_generated(where: str, given: Any) -> list[str]:
    texts = given if isinstance(given, list) else [given]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{where}: expected texts as responses, got {as_yaml(given)[:60]}")
    for text in texts:
        check_unicode(text, f"{where}: a response")
    return ["" if text == _UNMATCHED else text for text in texts]


def _read_scored(
    where: str, data: Mapping[str, Any], asked: list[Mapping[str, Any]], given: list[Any], number: int, prompts: Prompts
) -> tuple[list[str], Order, tuple[str, ...]]:
    """For each sample the letter of the likeliest option, as lm-eval's `acc` has it; order and texts of the options."""
    if _TWICE in (data.get("metrics") or ()) and len(asked) % 2 == 0:
        asked, given = asked[: len(asked) // 2], given[: len(given) // 2]
    if not 2 <= len(asked) <= MOST_OPTIONS:
        raise InputError(f"{where}: expected log-likelihoods of 2 to {MOST_OPTIONS} options, got {len(asked)}")
    texts = [str(request.get("arg_1")).strip() for request in asked]
    if len(set(texts)) == 1:  # the options stand in the prompts, which are other texts under other chat templates
        texts = [f"prompt {place}" for place in range(1, len(asked) + 1)]
    options, order = keep_choices(where, texts, number, prompts)
    # Of each option, a pair for each repeat; what a filter made of them is one pair.
    pairs = [value if isinstance(value, list) and value and isinstance(value[0], list) else [value] for value in given]
    if len({len(repeats) for repeats in pairs}) > 1:
        raise InputError(f"{where}: expected as many repeats for each option, got {[len(item) for item in pairs]}")
    samples = [[_log_likelihood(pair, where) for pair in sample] for sample in zip(*pairs, strict=True)]
    return [_likeliest(values) for values in samples], order, options


def _likeliest(values: list[float]) -> str:
    return "" if any(isnan(value) for value in values) else chr(ord("A") + values.index(max(values)))


def _log_likelihood(pair: Any, where: str) -> float:
    try:
        return float(pair[0])
    except (TypeError, ValueError, IndexError, KeyError):
        message = f"{where}: expected a log-likelihood and whether it is greedy for each option, got "
        raise InputError(message + as_yaml(pair)[:60]) from None


def _letter_of(target: Any, options: tuple[str, ...]) -> str | None:
    """The letter of the option that a target names by number or text; None where it names none."""
    text = str(target).strip()
    if text.isdecimal() and int(text) < len(options):
        return chr(ord("A") + int(text))
    same = " ".join(text.split())
    return chr(ord("A") + options.index(same)) if options.count(same) == 1 else None


def _text_of(target: Any) -> str | None:
    """A target as a known answer; None where there is none, or where it is a list of several."""
    text = str(target).strip()
    return None if target is None or not text or (text[0] == "[" and text[-1] == "]") else text


def _field(data: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    value = data.get(key)
    if not isinstance(value, kind):
        got = as_yaml(value)[:60] if key in data else f"the keys {', '.join(data)}"
        kinds = {int: "a whole number", str: "text", dict: "an object", list: "a list"}
        raise InputError(f'{where}: expected {kinds[kind]} in "{key}", as lm-eval 0.4.13 writes it, got {got}')
    return value


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{place}: expected an object for each request, got {as_yaml(value)[:60]}")
    return value


def _list(data: Mapping[str, Any], key: str, count: int, where: str) -> list[Any]:
    found = _field(data, key, list, where)
    if len(found) != count:
        what = counted(count, "request")
        raise InputError(f"{where}: {key}: expected one entry for each of {what}, got {len(found)}")
    return found
