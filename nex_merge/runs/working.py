"""What the workers of a running search are at, in words, and when they will be done."""

import heapq
from collections import Counter
from collections.abc import Sequence

from nex_merge.inert import one_line
from nex_merge.records import Live, LiveWorker
from nex_merge.runs import files
from nex_merge.wording import counted

MOMENT = 0.5  # seconds


def head(live: Live) -> list[str]:
    """Counts, and of one worker what it is at, of several how fast they are together; in parts of a line."""
    count = f"[{live.done}/{live.total}]"
    if len(live.workers) > 1:
        speed = sum(tokens_per_second(worker) for worker in live.workers if worker.state == "busy")
        together = counted(len(live.workers), "worker") + (f": {speed:,.0f} tokens/s" if speed else "")
        return [f"{count} {together}", *([f"{live.waiting} done, waiting"] if live.waiting else [])]
    worker = next((worker for worker in live.workers if worker.trial), None)
    if worker is None:
        return [count]
    at = f"{count} {files.trial_in_words(worker.trial, worker.method)}: {worker.stage}"
    return [at, *filter(None, [_amount(worker)])]


def tokens_per_second(worker: LiveWorker) -> float:
    """Of this stage so far; 0 unless it generates, and has for a moment: the first tokens come all at once."""
    elapsed = worker.told - worker.stage_began
    return worker.amount / elapsed if worker.stage == "generate" and elapsed > MOMENT else 0.0


def _amount(worker: LiveWorker) -> str:
    if worker.stage == "generate" and worker.amount:
        speed = tokens_per_second(worker)
        return counted(worker.amount, "token") + (f", {speed:,.0f} tokens/s" if speed else "")
    return counted(worker.amount, "response") if worker.stage == "capture" else ""


def _does(worker: LiveWorker) -> str:
    return worker.stage if worker.state == "busy" else worker.state


def worker_lines(workers: Sequence[LiveWorker], width: int, room: int | None = None) -> list[str]:
    """A line for each of several workers; none for one.

    `room`: in so many lines, of which the last says what those are at that have none. Workers that are lost or try a
    trial again have one first.
    """
    if len(workers) < 2:
        return []
    shown = workers
    if room is not None and len(workers) > room:
        odd = [worker for worker in workers if worker.state == "lost" or (worker.state == "busy" and worker.tries > 1)]
        chosen = [*odd, *(worker for worker in workers if worker not in odd)][: max(room - 1, 0)]
        shown = [worker for worker in workers if worker in chosen]
    cells = [_cells(worker) for worker in shown]
    wide = [max((len(row[at]) for row in cells), default=0) for at in range(2)]
    lines = [f"  {name:<{wide[0]}}  {trial:<{wide[1]}}  {rest}".rstrip() for name, trial, rest in cells]
    if rest := [worker for worker in workers if worker not in shown]:
        does = Counter(map(_does, rest))
        lines.append(f"  ... {len(rest)} more: {', '.join(f'{number} {what}' for what, number in does.items())}")
    return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]


def _cells(worker: LiveWorker) -> tuple[str, str, str]:
    name = one_line(worker.worker)
    if worker.state != "busy":
        return name, worker.state, ""
    again = f"try {worker.tries}" if worker.tries > 1 else ""
    parts = [part for part in (_amount(worker), again) if part]
    trial = one_line(files.trial_in_words(worker.trial, worker.method))
    return name, trial, f"{worker.stage}{'  ' if parts else ''}{', '.join(parts)}"


def time_left(live: Live, mean: float, now: float) -> float:
    """Seconds until all trials are done, if each takes `mean` of them and whoever is free begins the next.

    `now`: in seconds since the epoch.
    """
    busy = [max(mean - (now - worker.trial_began), 0.0) for worker in live.workers if worker.state == "busy"]
    free = [*busy, *(0.0 for worker in live.workers if worker.state == "idle")] or [0.0]
    heapq.heapify(free)
    for _ in range(live.total - live.done - live.waiting - len(busy)):
        heapq.heapreplace(free, free[0] + mean)
    return max(free)
