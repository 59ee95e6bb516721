"""Engines that workers make for themselves: quick, steady, and fatal at a stage that the environment names."""

import logging
import os
import signal
import time
from pathlib import Path

from nex_merge.errors import InputError
from tests.searches import Steady

AT, ONCE, SEED, HOW = "TEST_DIES_AT", "TEST_DIES_ONCE", "TEST_DIES_OF_SEED", "TEST_DIES_HOW"


class Mortal(Steady):
    """Ends its process at a stage of a merge: in the first worker that gets there, or whichever has the recipe."""

    def __init__(self):
        super().__init__()
        self.recipe = None

    def load(self, recipe):
        self.recipe = recipe
        time.sleep(int(super().load(recipe)[-2:], 16) / 2000)  # workers overtake one another
        self._perhaps("merge")
        return self.sha256

    def answer(self, *args, **kwargs):
        self._perhaps("generate")
        return super().answer(*args, **kwargs)

    def capture(self, *args, **kwargs):
        self._perhaps("capture")
        return super().capture(*args, **kwargs)

    def _perhaps(self, stage):
        if os.environ.get(AT) != stage or self.recipe.kind != "merge":
            return
        if (seed := os.environ.get(SEED)) is not None and self.recipe.seed != int(seed):
            return
        if (mark := os.environ.get(ONCE)) is not None:
            try:
                Path(mark).touch(exist_ok=False)
            except FileExistsError:
                return
        match os.environ.get(HOW, "kill"):
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "memory":
                raise MemoryError("no more of it")
            case "warning":
                logging.getLogger("nex_merge.engines").warning("something to know")
            case "fault":
                raise ZeroDivisionError("a fault of the program")


def refuses():
    raise InputError("a member is not there")


def never_starts():
    os._exit(7)
