"""No notices and progress bars of transformers and the hub while we use them; the user's settings are kept."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from nex_merge.checkpoints.hub import without_bars


@contextmanager
def quietly() -> Iterator[None]:
    """Until the end, transformers says errors alone, and neither it nor the hub shows a progress bar.

    As on the command line, where a user's TRANSFORMERS_VERBOSITY or HF_HUB_DISABLE_PROGRESS_BARS says otherwise, it
    stays as it is. Afterwards, everything is as it was before.
    """
    with warnings.catch_warnings():
        # In a notebook, tqdm asks for widgets, for bars that are not shown.
        warnings.filterwarnings("ignore", "IProgress not found")
        from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    says, shows = "TRANSFORMERS_VERBOSITY" not in os.environ, "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ
    with without_bars() if shows else nullcontext():
        if says:
            logging.set_verbosity_error()
        if shows:
            logging.disable_progress_bar()
        try:
            yield
        finally:
            if says:
                logging.set_verbosity(level)
            if shows and bars:
                logging.enable_progress_bar()  # the hub's too, of which `without_bars` knows what they were
