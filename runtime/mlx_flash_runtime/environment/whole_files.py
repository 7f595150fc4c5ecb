"""Files that other processes may read, or write as well, at any moment: read only where they are
regular files of a reasonable size, and written in one step.

`private_files` does the same where nobody but the user may have put the file there.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

UNFINISHED = ".flash-"  # how the name of a file starts that is being written


class NotRegular(OSError):
    """A folder, a device, a pipe or a socket in the place of a file."""

    why = "it is not a regular file"

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EINVAL, self.why, str(path))


def check(path: Path) -> None:
    """Raises NotRegular unless there is a regular file at `path`, or nothing yet: to read anything
    else may never end, and to replace it as root would take it from everybody."""
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(kind):
        raise NotRegular(path)


def open_file(path: Path, flags: int, mode: int = 0o666) -> int:
    """A descriptor of the regular file at `path`, or of a new one, as `flags` and `mode` of
    `os.open` say. Raises NotRegular; OSError."""
    check(path)
    # Without waiting, should a pipe have taken the file's place meanwhile.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, mode)


def read(path: Path, at_most: int) -> bytes:
    """The content of a regular file. Raises NotRegular; OSError, also where it has more than
    `at_most` bytes."""
    return read_open(open_file(path, os.O_RDONLY), path, at_most)


def read_open(handle: int, path: Path, at_most: int) -> bytes:
    """The content of the file at `path`, which `handle` is a descriptor of; closes it. Raises
    OSError, also where it has more than `at_most` bytes."""
    with os.fdopen(handle, "rb") as file:
        content = file.read(at_most + 1)
    if len(content) > at_most:
        raise OSError(errno.EFBIG, f"it has more than {at_most:,} bytes", str(path))
    return content


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Puts `content` in the place of the file in one step: a reader finds all of it or none.
    Raises NotRegular; OSError. The folder must exist."""
    check(path)
    replace(path, content, mode)


def replace(path: Path, content: bytes, mode: int) -> None:
    """The same in the place of whatever is there, but a folder."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
