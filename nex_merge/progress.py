"""What a search tells of itself while it runs, on stderr: a live line in a terminal, plain lines elsewhere."""

import sys
import time

from rich.console import Console
from rich.status import Status

from nex_merge.records import TrialResult

_UNITS = {"generate": "tokens", "capture": "responses"}


class Watcher:
    """Told when stages and trials begin and end; knows how many there will be."""

    def __init__(self, total: int, done: int = 0, objective: str = "nex", sign: int = 1) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._total, self._done = total, done
        self._objective, self._sign = objective, sign
        self._status: Status | None = None
        self._trial, self._best = "", None
        self._began = time.monotonic()
        self._here = 0  # trials finished by this process, which the time left is reckoned from

    def __enter__(self) -> "Watcher":
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._status is not None:
            self._status.stop()

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def begin(self, trial: str, name: str) -> None:
        self._trial = trial if trial == name or name in ("base", "parent") else f"{trial} ({name})"

    def stage(self, stage: str, done: int) -> None:
        if self._status is not None:
            amount = f" {done} {_UNITS[stage]}" if stage in _UNITS else ""
            self._status.update(f"[{self._done}/{self._total}] trial {self._trial}: {stage}{amount}")

    def end(self, result: TrialResult) -> None:
        self._done += 1
        self._here += 1
        score = result.value(self._objective) if result.state == "complete" else None
        if score is not None and (self._best is None or self._sign * (score - self._best[0]) > 0):
            self._best = (score, result.trial)
        found = f"{self._objective} {score:.4f}" if score is not None else f"{result.state}: {result.reason}"
        best = f", best {self._best[0]:.4f} (trial {self._best[1]})" if self._best is not None else ""
        left = (self._total - self._done) * (time.monotonic() - self._began) / self._here
        self.note(
            f"[{self._done}/{self._total}] trial {result.trial} {result.method}: {found}, "
            f"{sum(result.seconds.values()):.1f} s{best}, {_duration(left)} left"
        )
        sys.stderr.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
