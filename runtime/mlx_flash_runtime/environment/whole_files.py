"""Files that other processes may read, or write as well, at any moment."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

UNFINISHED = ".flash-"  # how the name of a file starts that is being written


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Puts `content` in the place of the file in one step: a reader finds all of it or none. Raises OSError; the folder
    must exist."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
