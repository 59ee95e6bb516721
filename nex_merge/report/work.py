"""work.jsonl -> who did what when: a lane for each worker, with what it did and how long it was there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from nex_merge.inert import one_line
from nex_merge.records import Stint
from nex_merge.runs.files import trial_in_words, trial_label
from nex_merge.wording import by_number, counted

WIDE = 14  # characters of a lane's name


@dataclass
class Lane:
    """A worker, and those that took its place when it was lost. Times are seconds of all sessions, one by one."""

    names: list[str] = field(default_factory=list)
    there: list[tuple[float, float]] = field(default_factory=list)
    stints: list[tuple[float, Stint]] = field(default_factory=list)  # since when, and what

    @property
    def name(self) -> str:
        name, more = one_line(self.names[0]), len(self.names) - 1
        return (name if len(name) <= WIDE else f"{name[: WIDE - 1]}…") + (f" +{more}" if more else "")


@dataclass(frozen=True)
class Bar:
    """A part of a lane of the picture."""

    lane: int
    since: float
    seconds: float
    label: str  # the trial, on the longest of its bars
    said: str


@dataclass(frozen=True)
class Work:
    """What several workers did."""

    lanes: Sequence[Lane]
    ends: Sequence[float]  # of the sessions, in seconds

    @property
    def busy(self) -> float:
        """The share of the time that workers were there in which they had a trial."""
        there = sum(end - since for lane in self.lanes for since, end in lane.there)
        return sum(stint.ended - stint.began for lane in self.lanes for _, stint in lane.stints) / (there or 1.0)

    def bars(self, doing: str) -> list[Bar]:
        """`doing`: idle, which lies below the others; a stage; or how a try ended that came to nothing."""
        if doing == "idle":
            there = [(at, *span) for at, lane in enumerate(self.lanes) for span in lane.there]
            return [Bar(at, since, end - since, "", "idle") for at, since, end in there]
        stints = [(at, since, stint) for at, lane in enumerate(self.lanes) for since, stint in lane.stints]
        return [bar for one in stints for kind, bar in _bars(*one) if kind == doing]

    def number(self, how: str) -> int:
        """Tries that ended so."""
        return sum(stint.how == how for lane in self.lanes for _, stint in lane.stints)


def _bars(lane: int, since: float, stint: Stint) -> Iterator[tuple[str, Bar]]:
    parts = stint.stages if stint.how == "done" else {stint.how: stint.ended - stint.began}
    again = f", try {stint.tries}" if stint.tries > 1 else ""
    for doing, seconds in parts.items():
        label = trial_label(stint.trial) if seconds == max(parts.values()) else ""
        said = f"{stint.worker}: {trial_in_words(stint.trial, stint.method)}{again}: {doing} {seconds:.1f} s"
        yield doing, Bar(lane, since, seconds, one_line(label), one_line(said))
        since += seconds


def work_of(stints: Sequence[Stint]) -> Work | None:
    """None unless several workers were there at once: of one, the times of the stages say as much."""
    lanes: list[Lane] = []
    ends: list[float] = []
    stints = [stint for stint in stints if stint.session <= stint.began <= stint.ended]  # clocks may be set
    for _, group in groupby(sorted(stints, key=lambda stint: stint.session), lambda stint: stint.session):
        ends.append(_add(list(group), lanes, ends[-1] if ends else 0.0))
    lanes.sort(key=lambda lane: by_number(lane.names[0]))
    return Work(lanes, ends) if len(lanes) > 1 else None


def _add(session: Sequence[Stint], lanes: list[Lane], at: float) -> float:
    """Add the stints of a session, in the order in which they ended, from a time on. Returns when it ended."""
    begin, end = min(stint.began for stint in session), max(stint.ended for stint in session)
    here: dict[str, tuple[Lane, float]] = {}  # by worker: its lane, and since when it is there
    for stint in session:
        since = stint.began - begin + at
        if stint.worker not in here:
            if stint.how == "lost" and not stint.trial:
                continue  # it never came
            taken = [lane for lane, _ in here.values()]
            lane = next((lane for lane in lanes if all(lane is not other for other in taken)), None)
            if lane is None:
                lanes.append(lane := Lane())
            if stint.worker not in lane.names:
                lane.names.append(stint.worker)
            here[stint.worker] = lane, since
        lane, came = here[stint.worker]
        if stint.trial:
            lane.stints.append((since, stint))
        if stint.how == "lost":
            lane.there.append((came, stint.ended - begin + at))
            del here[stint.worker]
    for lane, came in here.values():
        lane.there.append((came, end - begin + at))
    return end - begin + at


def in_words(work: Work) -> str:
    """How busy the workers were, and what was lost."""
    trials = len({(stint.trial, stint.method == "final") for lane in work.lanes for _, stint in lane.stints})
    lost, stopped, again = work.number("lost"), work.number("stopped"), len(work.ends) - 1
    busy = f"{len(work.lanes)} workers had a trial for {100 * work.busy:.0f} % of the time that they were there"
    tries = [f"lost with a worker: {lost}"] if lost else []
    tries += [f"stopped with the search: {stopped}"] if stopped else []
    nothing = f" Tries {', '.join(tries)}." if tries else ""
    times = "once" if again == 1 else f"{again} times"
    resumed = f" The search was resumed {times}; the time between is left out." if again else ""
    return f"{busy}, {counted(trials, 'trial')} in all.{nothing}{resumed}"
