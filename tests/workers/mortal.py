"""An engine that dies in a worker, in a module that workers import."""

import os
import signal
import time
from pathlib import Path

from nex_merge.engines.transformers import FamilyEngine


class Mortal(FamilyEngine):
    """In the first merge that is tried, ends its process; on the node `second`, waits for the end of that node."""

    def __init__(self, family, runtime, folder):
        """`folder`: with a file for each that has happened."""
        super().__init__(family, runtime)
        self._folder = Path(folder)

    def begin(self, recipe):
        self._recipe = recipe
        return super().begin(recipe)

    def answer(self, *arguments, **named):
        found = super().answer(*arguments, **named)
        is_second = os.environ.get("TEST_NODE") == "second"
        # Never in the process of the search, which rehearses.
        may = "RAY_RAYLET_PID" in os.environ and self._recipe.kind == "merge"
        if may and self._is_first("waits" if is_second else "killed"):
            if not is_second:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return found

    def _is_first(self, name):
        try:
            (self._folder / name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
