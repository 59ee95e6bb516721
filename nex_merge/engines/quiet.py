"""No notices and progress bars of transformers and the hub while we use them; the user's settings are kept."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quietly() -> Iterator[None]:
    """Until the end, transformers says errors alone, and neither it nor the hub shows a progress bar.

    As on the command line, where a user's TRANSFORMERS_VERBOSITY or HF_HUB_DISABLE_PROGRESS_BARS says otherwise, it
    stays as it is. Afterwards, everything is as it was before.
    """
    with warnings.catch_warnings():
        # In a notebook, tqdm asks for widgets, for bars that are not shown.
        warnings.filterwarnings("ignore", "IProgress not found")
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
        from transformers.utils import logging

    level, bars, hub = logging.get_verbosity(), logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    says = "TRANSFORMERS_VERBOSITY" not in os.environ
    shows = "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ
    if says:
        logging.set_verbosity_error()
    if shows:
        logging.disable_progress_bar()
        disable_progress_bars()
    try:
        yield
    finally:
        if says:
            logging.set_verbosity(level)
        if shows and bars:
            logging.enable_progress_bar()  # the hub's, too
        if shows and hub != (not are_progress_bars_disabled()):
            (enable_progress_bars if hub else disable_progress_bars)()
