"""What the pick, equal weights, parents and base conclude beside the pool, on the prompts on which they differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nex_merge.inert import visible
from nex_merge.labels.audit import prompt_texts
from nex_merge.measures.measure import Pool
from nex_merge.measures.votes import Conclusions, Key
from nex_merge.records import Observation, Variant
from nex_merge.report.data import MISSING, Snapshot
from nex_merge.runs import files
from nex_merge.runs.files import trial_label
from nex_merge.runs.run import RunFolder
from nex_merge.wording import counted

MOST = 60  # prompts that the table shows
CHARACTERS = 80  # of a conclusion or a prompt in a cell


@dataclass(frozen=True)
class Line:
    """A prompt, and what each column concludes on it."""

    prompt: str
    cells: Sequence[tuple[str, bool]]  # the conclusion, and whether it is the pool's; the pool's own comes first


@dataclass(frozen=True)
class Differences:
    """The prompts on which the pick and base or a parent conclude differently."""

    columns: Sequence[str]
    lines: Sequence[Line]
    about: str  # a sentence


NONE = Differences((), (), "")


def differences(snapshot: Snapshot) -> Differences:
    """Where the pick, base and parents differ. Raises InputError if responses of the run are missing or damaged."""
    columns = shown_variants(snapshot)
    run = snapshot.run.final or snapshot.run if snapshot.has_final else snapshot.run
    pool = _pool(run)
    places = {variant.trial: i for i, variant in enumerate(pool.variants)}
    members = [row.trial for row in snapshot.latest if row.kind != "merge" and row.trial in places]
    if snapshot.pick is None or not members or snapshot.pick.trial not in places:
        return NONE
    pick = pool.conclusions[places[snapshot.pick.trial]]
    others = [pool.conclusions[places[trial]] for trial in members]
    differing = [p for p in sorted(pick) if any(_set(each.get(p)) != _set(pick[p]) for each in others if p in each)]
    shown = {name: pool.conclusions[places[trial]] for name, trial in columns.items() if trial in places}
    pooled, texts = pool.fit.pooled, prompt_texts(snapshot.run)
    lines = [_line(p, shown.values(), pooled.get(p), texts) for p in differing[:MOST]]
    return Differences(["The pool", *shown], lines, _about(len(differing), len(pick), shown, pooled, differing))


def shown_variants(snapshot: Snapshot) -> dict[str, str]:
    """The variants that the page sets beside one another, by what it calls them: pick, equal weights, parents, base."""
    if snapshot.pick is None:
        return {}
    shown, equal = {snapshot.pick_name: snapshot.pick.trial}, snapshot.equal_weights
    if equal is not None:
        shown[f"Equal weights: trial {trial_label(equal.trial)}"] = equal.trial
    parents = dict.fromkeys(sorted(row.trial for row in snapshot.of("parent")))
    shown |= {f"Parent {trial}": trial for trial in parents}
    return shown | ({"Base": "base"} if snapshot.of("base") else {})


def _pool(run: RunFolder) -> Pool:
    """The responses of the run's variants, captured or not."""
    variants = [
        Variant(result.trial, result.kind, True, Observation(run.responses(result.trial)))
        for result in run.results()
        if result.state in files.SCORED
    ]
    return Pool(variants, run.rules())


def _set(keys: Sequence[Key | None] | None) -> frozenset[Key | None]:
    return frozenset(keys or (None,))


def _line(prompt: int, shown: Iterable[Conclusions], pooled: Key | None, texts: Sequence[str] | None) -> Line:
    text = f"{prompt}" if texts is None else f"{prompt}: {_short(texts[prompt])}"
    cells = [(_cell([pooled]), True)]
    return Line(text, cells + [(_cell(by.get(prompt, ())), set(by.get(prompt, ())) == {pooled}) for by in shown])


def _cell(keys: Sequence[Key | None]) -> str:
    """What the samples of a response conclude."""
    return " / ".join(MISSING if key is None else _short(str(key)) for key in dict.fromkeys(keys)) or MISSING


def _short(text: str) -> str:
    line = visible(" ".join(text.split()))
    return line if len(line) <= CHARACTERS else f"{line[:CHARACTERS]} …"


def _about(
    count: int, asked: int, shown: Mapping[str, Conclusions], pooled: Mapping[int, Key], differing: Sequence[int]
) -> str:
    if not count:
        return f"The pick concludes what base and parents conclude on all of {counted(asked, 'prompt')}."
    agree = ", ".join(
        f"{'the pick' if i == 0 else f'{name[:1].lower()}{name[1:]}'.partition(':')[0]} "
        f"{sum(p in pooled and set(by.get(p, ())) == {pooled[p]} for p in differing)}"
        for i, (name, by) in enumerate(shown.items())
    )
    rest = f" The first {MOST} are shown." if count > MOST else ""
    return (
        f"The pick and base or a parent conclude differently on {count} of {counted(asked, 'prompt')}. How often each "
        f"concludes there what the pool does: {agree}. A dash is no conclusion.{rest}"
    )
