"""The process of an experiment tracker, started by `observer.py`: `python -m nex_merge.study.tracking.process FD`.

Trackers print, warn, retry for minutes and import for seconds. Here they may: the search waits for none of it. It says
only that there is something new, and this process looks for it in the run folder.
"""

import signal
import sys
from multiprocessing.connection import Connection

from nex_merge.runs.leaderboard import LEADERBOARD_FILES
from nex_merge.study.tracking.told import Task, Tracker, entries, read_kept

# What the search says.
NEWS, END, STOPPED = b"news", b"end", b"stopped"
# What it is told: that all is told up to its last word, or why nothing more will be.
TOLD, FAULT = "told", "fault"


def tracker_of(task: Task) -> Tracker:
    """The tracker that a task names. Imports it."""
    if task.tracker == "trackio":
        from nex_merge.study.tracking.to_trackio import Trackio

        return Trackio(task)
    from nex_merge.study.tracking.to_mlflow import Mlflow

    return Mlflow(task)


class Teller:
    """Tells a tracker what it does not know yet."""

    def __init__(self, task: Task, tracker: Tracker) -> None:
        self._task, self._tracker = task, tracker
        self._kept = read_kept(task.run, task.tracker, task.where)
        self._kept.search = tracker.begin(self._kept.search)
        self._kept.write(task.run, task.tracker)

    def news(self, again: bool = False) -> None:
        """Tell of finished trials. `again`: also of those that are worth something else now than was told."""
        kept = self._kept
        for entry in entries(self._task.run, () if again else {*kept.trials}):
            if kept.metrics.get(entry.trial) != entry.digest:
                kept.trials[entry.trial] = self._tracker.tell(entry, kept.trials.get(entry.trial))
                kept.metrics[entry.trial] = entry.digest
                kept.write(self._task.run, self._task.tracker)

    def end(self, complete: bool) -> None:
        self.news(again=True)
        table = self._task.run / LEADERBOARD_FILES[0]
        self._tracker.end(table if table.is_file() else None, complete)


def follow(connection: Connection) -> None:
    """Tell a tracker of a search until that ends, however it does."""
    task: Task = connection.recv()
    try:
        teller = Teller(task, tracker_of(task))
        teller.news()
        while True:
            try:
                word = connection.recv_bytes()
            except EOFError:  # the search was killed
                word = STOPPED
            if word == NEWS:
                teller.news()
            else:
                teller.end(word == END)
                connection.send((TOLD, ""))
                return
    except Exception as error:  # of whatever library: the search goes on without it
        first = (str(error).strip().splitlines() or [""])[0]
        connection.send((FAULT, f"{type(error).__name__}: {first}"))


def main() -> None:
    # A terminal's Ctrl-C is the search's, which says how it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Connection(int(sys.argv[1])) as connection:
        try:
            follow(connection)
        except OSError:  # nobody is there to be told
            sys.exit(1)


if __name__ == "__main__":
    main()
