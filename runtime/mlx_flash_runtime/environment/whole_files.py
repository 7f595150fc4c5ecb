"""Files that other processes may read, or write as well, at any moment."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

UNFINISHED = ".flash-"  # how the name of a file starts that is being written


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Puts `content` in the place of the file in one step: a reader finds all of it or none.
    Raises OSError; the folder must exist."""
    check(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def read(path: Path, at_most: int) -> bytes:
    """What is in a regular file of `at_most` that many bytes. Raises OSError."""
    with os.fdopen(opened(path, os.O_RDONLY), "rb") as file:
        content = file.read(at_most + 1)
    if len(content) > at_most:
        raise OSError(errno.EFBIG, f"it has more than {at_most:,} bytes", str(path))
    return content


def opened(path: Path, flags: int) -> int:
    """A descriptor of the regular file at `path`, or of a new one, as `flags` of `os.open` say.
    Raises OSError."""
    check(path)
    # Without waiting, should a pipe have taken the file's place meanwhile.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, 0o666)


def check(path: Path) -> None:
    """Raises OSError where a folder, a device, a pipe or a socket is in the place of a file: to
    read it may never end, and to replace it as root would take it from everybody."""
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
