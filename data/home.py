"""The one place on disk that is ours: downloads and caches."""

import os
from pathlib import Path

__all__ = ["warmstart_home"]


def warmstart_home() -> Path:
    """The folder for downloads and caches: `$WARMSTART_HOME`, by default `~/.cache/warmstart`. It may not exist yet."""
    return Path(os.environ.get("WARMSTART_HOME") or "~/.cache/warmstart").expanduser()
