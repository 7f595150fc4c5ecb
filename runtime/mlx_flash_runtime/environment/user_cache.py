"""Where things that can be made again are kept for the user of this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def folder() -> Path:
    """This package's folder in the user's folder for caches; it need not exist. Raises
    RuntimeError where the user has no home."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "mlx-flash"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "mlx-flash"
