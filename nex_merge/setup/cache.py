"""Where results that can be made again are kept between runs."""

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """This user's cache folder, as the XDG specification has it; None for a user without a home."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "nex-merge"
    try:
        return Path.home() / ".cache" / "nex-merge"
    except RuntimeError:
        return None
