"""An engine that dies in a worker, in a module that workers import."""

import os
import signal
import time
from pathlib import Path

from nex_merge.engines.transformers import FamilyEngine


class Mortal(FamilyEngine):
    """Ends its process, or waits until its node is ended, in the first merge that is tried where it may."""

    def __init__(self, family, runtime, marker, node=None):
        super().__init__(family, runtime)
        self._marker, self._node = Path(marker), node

    def answer(self, *arguments, **named):
        found = super().answer(*arguments, **named)
        if self._recipe.kind == "merge" and self._is_chosen():
            if self._node is None:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return found

    def load(self, recipe):
        self._recipe = recipe
        return super().load(recipe)

    def _is_chosen(self):
        """Never in the process of the search, which rehearses; and once."""
        if "RAY_RAYLET_PID" not in os.environ or os.environ.get("TEST_NODE") != self._node:
            return False
        try:
            self._marker.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
