"""The one gate for files that are read: what a repo holds under a familiar name may be no file at
all.

A name can be a link out of the repo, a pipe that nobody writes to, a device without an end, or a
file larger than the memory. Only regular files inside the repo are read, and only up to a size.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from flash_integrate.errors import FileError

SOURCE_LIMIT = 64 << 20
"""Bytes of a script or a notebook; hosts of repos advise against files of this size, and notebooks
stay below it."""
SETTINGS_LIMIT = 1 << 20
"""Bytes of what packages or configures a repo: setup.cfg, pyproject.toml, requirements.txt and the
like."""
IGNORE_LIMIT = 128 << 10
"""Bytes of a .gitignore: each of its patterns is asked about each file, and this is room for ten
thousand of them."""
CHANGED = "changed on disk while the tool was reading it; run the tool again"

_NO_NAME = "no name for a file"  # it has a NUL, or characters that no file system takes
# Opening a pipe must not wait for its other end; a link that took the file's place in the meantime
# is not followed.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OTHER_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def inside(path: Path, root: Path, *, missing: bool = False) -> Path:
    """Where `path` leads when its links are followed.

    `root` is the top of the repo, its own links already followed. With `missing` the path need not
    exist.

    Raises:
        FileError: it leads out of `root`.
        OSError: there is nothing, or links lead in a circle.
    """
    try:
        real = os.path.realpath(path, strict=not missing)
    except ValueError as error:
        raise FileError(_NO_NAME) from error
    top = str(root)
    if real != top and not real.startswith(top.rstrip(os.sep) + os.sep):
        raise FileError(f"leads out of the repo by a link, to {real}")
    return Path(real)


def read(path: Path, root: Path, limit: int = SOURCE_LIMIT) -> bytes:
    """The bytes of a regular file of at most `limit` bytes, which lies inside `root` when its
    links are followed.

    Raises:
        FileError: there is no such file, it is something else or too large, or it can't be read.
    """
    try:
        return _read(path, root, limit)
    except OSError as error:
        raise FileError(error.strerror or str(error)) from error


def read_if_there(path: Path, root: Path, limit: int = SOURCE_LIMIT) -> bytes | None:
    """As `read`; None where there is no file of that name.

    Raises:
        FileError: what is there is no regular file or too large, or it can't be read.
    """
    try:
        return _read(path, root, limit)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise FileError(error.strerror or str(error)) from error


def _read(path: Path, root: Path, limit: int) -> bytes:
    try:
        # First of all: mostly there is no such file, which following its links would take long to
        # find, and to open a device may already do something.
        status = os.lstat(path)
    except ValueError as error:
        raise FileError(_NO_NAME) from error
    real = inside(path, root)
    _refuse_other_kinds(os.lstat(real) if stat.S_ISLNK(status.st_mode) else status)
    with open(real, "rb", buffering=0, opener=_open) as file:
        status = os.fstat(file.fileno())
        _refuse_other_kinds(status)
        if status.st_size > limit:
            raise FileError(
                f"larger than {_size(limit)}, and no file of this kind is read beyond that"
            )
        data = file.read(status.st_size + 1)
    if len(data) != status.st_size:
        raise FileError(CHANGED)
    return data


def _open(name: str, _: int) -> int:
    return os.open(name, _FLAGS)


def _size(limit: int) -> str:
    return f"{limit >> 20} MiB" if limit >> 20 else f"{limit >> 10} KiB"


def _refuse_other_kinds(status: os.stat_result) -> None:
    if (kind := stat.S_IFMT(status.st_mode)) in _OTHER_KINDS:
        raise FileError(f"{_OTHER_KINDS[kind]}, not a file")
