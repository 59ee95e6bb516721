"""`nex-merge audit`: a person, or a file of labels, says which conclusions are right."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nex_merge.cli.app import MEASURE, Run, ShortFormat, app, example, path_value, say_next, say_next_steps
from nex_merge.errors import InputError
from nex_merge.inert import json_text
from nex_merge.setup.paths import command
from nex_merge.terminal import echo
from nex_merge.wording import counted

if TYPE_CHECKING:
    from nex_merge.labels.audit import AuditOutcome, Option
    from nex_merge.measures.measure import Pool
    from nex_merge.runs.questions import AuditLabels
    from nex_merge.runs.run import RunFolder

# How much of a response and of a prompt is shown unless asked for.
_RESPONSE_LINES, _PROMPT_LINES, _LINE = 3, 12, 200
_QUIT, _NOT_SURE, _WHOLE, _NONE = "q", "s", "w", "0"


@app.command(rich_help_panel=MEASURE, epilog=example("audit results/qwen3_ties --n 20"))
def audit(
    run: Run,
    n: Annotated[int, typer.Option("--n", min=1, help="prompts to draw, with those of earlier audits")] = 12,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=path_value,
            help="JSONL or CSV with index (a prompt's number in the run, from 0) or prompt (its text), and answer "
            "(empty: no variant is right); all of them count",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="seed of the drawing; default: the study's")] = None,
    form: Annotated[ShortFormat, typer.Option("--format", help="output format")] = ShortFormat.table,
) -> None:
    """Check consensus by hand on a few prompts drawn at random, and rescore with the labels as known truths.

    If most variants share one wrong answer, consensus ranks them upside down, which only labels can show. What is said
    is kept in audit.json, and a later audit goes on from there. To undo it, delete that file and rescore.
    """
    from nex_merge.labels.audit import conclude_audit, earlier_labels, open_pool, prompt_texts, with_labels
    from nex_merge.runs.custody import locked
    from nex_merge.runs.run import RunFolder

    opened = RunFolder(run)
    opened = opened.final or opened  # the ranking that leads is the one to check
    with locked(run):  # a running search writes the same files
        pool = open_pool(opened)
        known = earlier_labels(opened, pool)
        if labels is not None:
            from nex_merge.labels.audit_files import read_truths

            truths, inside = read_truths(labels, pool, prompt_texts(opened))
            _say_inside(inside, pool.match)
            known = with_labels(known, truths)
        else:
            known = _interview(opened, pool, known, n, opened.config.study.seed if seed is None else seed)
        outcome = conclude_audit(opened, pool, known)
    if outcome is None:
        if labels is not None:
            raise InputError(
                f"--labels: {labels}: none of its labels is for a prompt on which any variant concludes something"
            )
        echo("No label was given, so nothing has changed.", err=True)
        return
    silent = sum(p not in pool.fit.pooled for p in known.drawn)
    if form is ShortFormat.json:
        echo(json_text(_as_json(outcome)))
    else:
        _print(opened, run, outcome, silent, len(known.drawn) - silent - outcome.audit.n)


def _say_inside(inside: "Mapping[int, str]", match: str) -> None:
    """Which labels tell nothing, as answers are read in another way than the labels are written."""
    if inside:
        prompt, example = next(iter(inside.items()))
        _say(
            f"Left out: {counted(len(inside), 'prompt')} on which the label is no conclusion but stands inside one, "
            f"such as prompt {prompt}: {example}. Conclusions are read as {match}; give the whole of one as the label, "
            "or search with a reading that fits the answers (consensus.match)."
        )


def _interview(run: "RunFolder", pool: "Pool", known: "AuditLabels", n: int, seed: int) -> "AuditLabels":
    """Ask on the terminal, on stderr as stdout has the result; what is said is kept after every answer."""
    from nex_merge.inert import visible
    from nex_merge.labels.audit import draw, pages, prompt_texts
    from nex_merge.runs.questions import AuditLabels, write_labels

    further = draw(pool.prompts, n, seed, known.drawn, pool.fit.pooled)
    further = [p for p in further if p in pool.asked]  # others are kept for a final, or are the search's
    asked = [p for p in further if p in pool.fit.pooled]
    if asked and not _is_terminal():
        raise InputError(
            "audit: asking needs a terminal. Write the labels into a file instead: "
            f"{command('audit', run.path, '--labels', 'FILE')}. The prompts drawn at random are, counted from 0: "
            f"{', '.join(map(str, asked))}"
        )
    count = sum(p in pool.fit.pooled for p in known.drawn)
    total = count + len(asked)
    if not asked and total >= n:
        _say(f"{counted(count, 'prompt')} asked already; a larger --n asks for more.")
    if total < n:
        _say(f"The run has only {counted(total, 'prompt')} with a conclusion.")
    texts = prompt_texts(run) if asked else None
    for prompt in further:
        labels = dict(known.by_prompt)
        if prompt in pool.fit.pooled:
            count += 1
            text = texts[prompt] if texts is not None else _decoded(run, pool, prompt)
            _say(f"\nPrompt {count} of {total} (number {prompt} of the run)\n{_indented(_head(visible(text)))}")
            answer = _ask(pages(pool, prompt, seed), text)
            if answer == _QUIT:
                break
            if answer != _NOT_SURE:
                labels[prompt] = None if answer == _NONE else answer[1:]
        known = AuditLabels(known.match, (*known.drawn, prompt), labels)
        write_labels(run.path, known)
    return known


def _ask(shown: "Sequence[Sequence[Option]]", prompt: str) -> str:
    """What is right: "=" and a conclusion, or the key for none, not sure or quit."""
    from nex_merge.inert import visible

    for number, options in enumerate(shown):
        rest = sum(len(page) for page in shown[number + 1 :])
        for i, option in enumerate(options, 1):
            _say(f"\n  {i}  {visible(str(option.key))}   ({counted(option.variants, 'variant')})")
            _say(_indented(_tail(visible(option.response)), "       "))
        none = f"0 none of these: show {rest} more" if rest else "0 none of these"
        keys = "1" if len(options) == 1 else f"1 to {len(options)}"
        while True:
            _say(f"\nWhich is right? {keys}, {none}, s not sure, w whole texts, q stop: ", end="")
            key = _key()
            _say(key)
            if key in (_QUIT, _NOT_SURE):
                return key
            if key == _NONE:
                break
            if key == _WHOLE:
                _say(f"\n{_indented(visible(prompt))}")
                for i, option in enumerate(options, 1):
                    _say(f"\n  {i}  {visible(str(option.key))}\n{_indented(visible(option.response), '       ')}")
            elif key.isdecimal() and 1 <= int(key) <= len(options):
                return f"={options[int(key) - 1].key}"
    return _NONE


def _key() -> str:
    try:
        return typer.getchar().lower() or _QUIT  # empty: the input has ended
    except EOFError:  # Ctrl-D
        return _QUIT


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _decoded(run: "RunFolder", pool: "Pool", prompt: int) -> str:
    """A prompt as the model read it, where its file has changed."""
    from nex_merge.engines.loading import load_tokenizer

    responses = (r for v in pool.variants for r in v.observation.responses if r.prompt == prompt)
    return str(load_tokenizer(run.tokenizer_folder).decode(list(next(responses).prompt_ids)))


def _say(text: str, end: str = "\n") -> None:
    echo(text + end, err=True, nl=False)


def _head(text: str) -> str:
    lines = text.strip().split("\n")
    more = [f"... ({counted(len(lines) - _PROMPT_LINES, 'line')} more)"] if len(lines) > _PROMPT_LINES else []
    return "\n".join([*lines[:_PROMPT_LINES], *more])


def _tail(text: str) -> str:
    """The end of a response, where its conclusion stands."""
    lines = [line for line in text.split("\n") if line.strip()]
    last = [line if len(line) <= _LINE else f"...{line[-_LINE:]}" for line in lines[-_RESPONSE_LINES:]]
    return "\n".join((["..."] if len(lines) > _RESPONSE_LINES else []) + last)


def _indented(text: str, by: str = "  ") -> str:
    return "\n".join(by + line for line in text.split("\n"))


def _as_json(outcome: "AuditOutcome") -> Mapping[str, object]:
    found, (low, high) = outcome.audit, outcome.audit.interval()
    return {
        "n": found.n, "right": found.right, "low": low, "high": high, "claimed": found.claimed,
        "verdict": outcome.verdict.level, "reasons": list(outcome.verdict.reasons),
        "pick_before": outcome.pick_before, "pick_after": outcome.pick_after,
    }  # fmt: skip


def _print(run: "RunFolder", folder: Path, outcome: "AuditOutcome", silent: int, unsure: int) -> None:
    """`folder`: of the run that was named; `run` is its final, if it has one."""
    from nex_merge.labels.audit import CONTRADICTED, IN_LINE
    from nex_merge.measures.registry import MEASURES, measure_title
    from nex_merge.runs.files import trial_label
    from nex_merge.runs.results import read_reliability
    from nex_merge.runs.tables import count_trials, print_table

    found, (low, high) = outcome.audit, outcome.audit.interval()
    echo(
        f"The pool's conclusion is right on {found.right} of {found.n} ({found.right / found.n:.0%}, 95 % interval "
        f"{low:.0%} to {high:.0%}); consensus claimed {found.claimed:.0%}."
    )
    if outcome.standing == CONTRADICTED:
        upside = "most variants share their mistakes, so that its ranking may be upside down"
        high_values = "its values are too high, though the order may still hold"
        echo(f"The labels contradict consensus: {upside if 2 * found.right < found.n else high_values}.")
    elif outcome.standing == IN_LINE:
        below = "Fewer are right than consensus claims, but not so few that the labels contradict its ranking."
        echo("The labels are in line with what consensus claims." if high >= found.claimed else below)
    else:
        echo("These are too few labels to tell.")
    for count, why in ((silent, "no variant concludes anything"), (unsure, "you were not sure")):
        if count:
            echo(f"Left out: {counted(count, 'prompt')} on which {why}.")
    echo()
    reliability = read_reliability(run.path)
    title = f"{run.path}: {count_trials(outcome.rows)}, scored with {counted(found.n, 'known truth')}"
    print_table(outcome.rows, title, run.objective, reliability, outcome.rows)
    echo()
    before, after = (None if t is None else trial_label(t) for t in (outcome.pick_before, outcome.pick_after))
    by = run.objective.name
    pick = f"The first by {measure_title(by)} stays trial {after}"
    if before != after:
        pick = f"The first by {measure_title(by)} was trial {before} and is trial {after}"
    if after is None:
        pick = "No merge is complete"
    aside = "" if MEASURES[by].takes_labels else f" {measure_title(by)} takes no labels."
    echo(f"{pick}; {outcome.changed} of the first {outcome.top} ranks changed.{aside}")
    if outcome.standing not in (CONTRADICTED, IN_LINE):
        say_next("More labels", "audit", folder, "--n", 2 * found.n)
    say_next_steps(outcome.rows, run.objective, reliability, folder, audited=True)
