"""The final: the best merges answer prompts that the search has not seen, and the ranking that leads comes from there.

The best of many merges on the prompts that they were chosen by looks better than it is; on other prompts it does not.
A final is a run folder in the run folder, whose trials are those of the run that take part.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import yaml

from nex_merge.errors import RunError
from nex_merge.measures.estimates import Objective
from nex_merge.measures.registry import MEASURES
from nex_merge.records import TrialResult
from nex_merge.runs import files
from nex_merge.runs.front import first_front
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.rescore import rescore_run
from nex_merge.runs.room import make_room
from nex_merge.runs.rows import Row
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import RunConfig
from nex_merge.study.crew import Crew, Failed, Known, Task
from nex_merge.study.known import horizon
from nex_merge.study.observers import Observer
from nex_merge.study.terms import Terms
from nex_merge.study.trial import TrialRunner, Tried
from nex_merge.wording import counted


def play_final(run: RunFolder, searched: TrialRunner, crew: Crew, prompts: Sequence[int], observer: Observer) -> None:
    """Let the finalists, base, parents and equal weights answer the prompts of the final, and rank them there.

    `searched`: what planned the trials of the search, `crew`: who did them. `prompts`: those that it has not seen.

    All other complete merges answer too, to vote, the best first, until the search's budget of tokens is spent; they
    can't be picked. What was answered before is kept, unless a final of these merges alone would have another result.
    The caller scores the run afterwards. Raises RunError if a merge's tensors differ from those of the search.
    """
    terms = replace(searched.terms, asked=prompts)
    config, members = terms.config, terms.members
    assert config.study.final is not None, "asked for"
    rows = read_rows(run, final=False)
    complete = [row for row in rows if row.kind == "merge" and row.state == "complete"]
    if not complete:
        observer.on_note("study.final: no merge is complete, so there is no final")
        return
    chosen = _finalists(complete, run.objective, config.study.final.top)
    anchors = [row.trial for row in rows if row.kind != "merge" or row.reference]
    final = _open(run, chosen)
    # Who only votes is not captured where `activations.capture` is final.
    runner, voting = (
        searched.under(replace(terms, config=_in_final(config, capture)), final) for capture in ("all", "none")
    )
    needed = dict.fromkeys([*members, *anchors, *chosen])
    results = {result.trial: result for result in run.results()}
    taking_part = dict.fromkeys([*needed, *(row.trial for row in complete)])
    order = [trial for trial in taking_part if trial in results and results[trial].state in files.SCORED]
    for trial in _stale(final, terms, order, needed):
        final.discard(trial)
    todo = [results[trial] for trial in order if final.result(trial) is None]
    if todo:
        observer.on_note(
            f"final: {counted(len(todo), 'variant')} {'answers' if len(todo) == 1 else 'answer'} "
            f"{counted(len(terms.asked), 'prompt')} that the search has not seen; picks come "
            f"from the first {len(chosen)}"
        )
    budget, parallel = config.study.max_tokens, config.study.parallel

    def begin(turn: int) -> Task | Known | None:
        if turn == len(order):
            return None
        trial = order[turn]
        if final.result(trial) is not None:
            return Known(None)
        if budget is not None and trial not in needed:
            before = {*order[: horizon(turn, parallel)]}
            own = sum(final.tokens(item) for item in final.results() if item.trial in before)
            spent = own + sum(run.tokens(item) for item in run.results())
            if spent >= budget:
                observer.on_note(
                    f"final: study.max_tokens: {spent:,} of {budget:,} tokens are spent; no more merges vote"
                )
                return None
        chosen, recipe = runner if trial in needed else voting, run.recipe(results[trial])
        return chosen.task(trial, results[trial].name, "final", recipe)

    def keep(turn: int, outcome: Tried | Failed | None) -> None:
        if outcome is not None:
            _keep(run, final, runner if order[turn] in needed else voting, results[order[turn]], outcome)
            make_room(final)

    crew.in_order(parallel, begin, keep)
    make_room(final)  # also what an interrupted one had left to do
    rescore_run(final, config.nex)


def forget_final(run: RunFolder) -> None:
    """Until the next final is over, that of a shorter search must not lead, with other finalists."""
    (run.path / files.FINAL / files.SCORES).unlink(missing_ok=True)


def _finalists(complete: Sequence[Row], objective: Objective, top: int) -> list[str]:
    """The best merges; with several objectives, the best of the front by each in turn, before those behind it."""
    order = [row.trial for row in complete]
    if objective.others:
        front = first_front(complete)
        ways = [sorted(front, key=lambda row, one=one: -one.sign * row.known(one.name)) for one in objective.all]
        order = [way[place].trial for place in range(len(front)) for way in ways] + order
    return list(dict.fromkeys(order))[:top]


def _stale(final: RunFolder, terms: Terms, order: Sequence[str], needed: Collection[str]) -> list[str]:
    """The merges in the folder that would have another result there if this were the first final.

    They were captured and now only vote, or the other way round; or constraints look at a measure that takes the whole
    pool, and other merges had answered before them.
    """
    kept = {result.trial: result for result in final.results()}
    merges = [trial for trial, result in kept.items() if result.kind == "merge"]
    config, bounded = terms.config, [MEASURES[each.measure] for each in terms.constraints]
    look_at_pool = any(measure.needs_pool or measure.is_pooled(config.nex) for measure in bounded)
    if look_at_pool and {*order[: len(kept)]} != {*kept}:
        return merges
    if config.activations.capture != "final":
        return []
    scored = [trial for trial in merges if kept[trial].state in files.SCORED]
    return [trial for trial in scored if (kept[trial].score is not None) != (trial in needed)]


def _in_final(config: RunConfig, capture: str) -> RunConfig:
    """The configuration of trials of the final: not raced; `capture` where the search leaves that to the final."""
    study = config.study.model_copy(update={"pruner": "none"})
    kept = config.activations.capture
    activations = config.activations.model_copy(update={"capture": capture if kept == "final" else kept})
    return config.model_copy(update={"study": study, "activations": activations})


def _open(run: RunFolder, chosen: list[str]) -> RunFolder:
    """The run of the final, with those that can be picked in it."""
    content = files.read_yaml_mapping(run.path / files.CONFIG)
    content["resolved"] = {**content["resolved"], "finalists": chosen}
    folder = run.path / files.FINAL
    forget_final(run)
    run.seal_final(folder, content)
    files.write_atomically(folder / files.CONFIG, yaml.safe_dump(content, sort_keys=False))
    return run.within(folder)


def _keep(run: RunFolder, final: RunFolder, runner: TrialRunner, result: TrialResult, outcome: Tried | Failed) -> None:
    if isinstance(outcome, Tried) and outcome.answered.weights_sha256 != result.weights_sha256:
        raise RunError(
            f"{final.path}: {files.trial_name(result.trial)}: merged again, its tensors differ from those of the "
            "search: the parents or the libraries have changed since"
        )
    # Base and parents are their own teachers, and answer before any merge.
    shared = runner.pool.weights(int(result.trial)) if result.kind == "merge" else None
    runner.keep(result.trial, result.name, run.recipe(result), outcome, shared)
