"""Where on this machine things are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Of what can be made again: rendered scenes, latents, measured choices. GENPERCEPT_CACHE moves it. It may not exist."""
    if own := os.environ.get("GENPERCEPT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "genpercept"
