"""Writes results to disk: atomically, and not over work that git does not have.

This is the one gate for files that are written or removed: each lies inside the repo when its
links are followed, and is what was read of it. `root` is everywhere the top of the repo, its own
links already followed.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from flash_integrate.disk import reading
from flash_integrate.disk.attributes import copy_attributes
from flash_integrate.errors import FileError

_TEMPORARY = re.compile(r"\.flash-integrate-[0-9a-f]{16}\.tmp")


def write(path: Path, root: Path, before: bytes, after: bytes) -> None:
    """Replaces a file in one step; permissions and extended attributes stay, and the owner where
    that is allowed.

    A link stays one: its target is replaced. A file with several names (hard links) becomes one of
    its own, as when git writes it: what the other names stand for may be another program's, such
    as uv's cache.

    Raises:
        FileError: the file is not what was read, lies outside `root`, or can't be written. It is
            left as it is.
    """
    try:
        real = reading.inside(path, root)
        _check_unchanged(real, before)
        if not os.access(real, os.W_OK):
            raise FileError("not writable")
        _replace(real, before, after)
    except OSError as error:
        raise FileError(error.strerror or str(error)) from error


def create(path: Path, root: Path, data: bytes) -> None:
    """Writes a new file in one step, and the folders above it that are missing.

    Raises:
        FileError: there is a file already, it would lie outside `root`, or it can't be written.
    """
    try:
        folder = reading.inside(path.parent, root, missing=True)
        _check_unchanged(folder / path.name, None)
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / path.name, None, data)
    except OSError as error:
        raise FileError(error.strerror or str(error)) from error


def delete(path: Path, root: Path, before: bytes) -> None:
    """Removes a file.

    Raises:
        FileError: the file is not what was read, is a link, lies outside `root`, or can't be
            removed.
    """
    try:
        real = _not_a_link(path, root)
        _check_unchanged(real, before)
        real.unlink()
    except OSError as error:
        raise FileError(error.strerror or str(error)) from error


def delete_compiled(path: Path, root: Path) -> None:
    """Removes a file that Python makes anew when it needs it, whatever it holds.

    Raises:
        FileError: it is a link, lies outside `root`, or can't be removed.
    """
    try:
        _not_a_link(path, root).unlink()
    except OSError as error:
        raise FileError(error.strerror or str(error)) from error


def delete_empty_folder(path: Path, root: Path) -> None:
    """Removes a folder if there is nothing in it.

    Raises:
        FileError: it is a link, lies outside `root`, or can't be removed.
    """
    try:
        if not os.listdir(real := _not_a_link(path, root)):
            real.rmdir()
    except OSError as error:
        raise FileError(error.strerror or str(error)) from error


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Removes from `folders` the temporary files of runs that were killed; those of runs that go
    on stay."""
    for folder in folders:
        names: list[str] = []
        with suppress(OSError):
            names = os.listdir(folder)
        for name in filter(_TEMPORARY.fullmatch, names):
            with suppress(OSError):
                _remove_leftover(folder / name)


def _not_a_link(path: Path, root: Path) -> Path:
    real = reading.inside(path.parent, root) / path.name
    if real.is_symlink():
        raise FileError("a link, and not what was put there")
    return real


def _check_unchanged(path: Path, before: bytes | None) -> None:
    """Checks that a file is what was read of it, or where that is None that there is none."""
    if before is not None and reading.read(path, path.parent) != before:
        raise FileError(reading.CHANGED)
    if before is None and os.path.lexists(path):
        raise FileError("is there already")


def _replace(path: Path, before: bytes | None, after: bytes) -> None:
    """Puts `after` in the place of the file, or of none where `before` is None."""
    temporary = path.with_name(f".flash-integrate-{secrets.token_hex(8)}.tmp")
    try:
        with _create_locked(temporary) as file:
            file.write(after)
            file.flush()
            os.fsync(file.fileno())
            if before is None:
                os.chmod(temporary, 0o666 & ~_umask())
            else:
                _copy_status(path, temporary)
            # Once more: on a slow disk much can happen while a file is written.
            _check_unchanged(path, before)
            os.replace(temporary, path)
    except BaseException:  # also Ctrl-C, at any point: no temporary file is left behind
        temporary.unlink(missing_ok=True)
        raise


def _create_locked(path: Path) -> BinaryIO:
    """A new file, locked until it is closed: by that `remove_leftovers` knows that the run which
    made it lives."""
    while True:
        file = open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.path.lexists(path):
            return file
        file.close()  # another run took it for a leftover before it was locked


def _remove_leftover(path: Path) -> None:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        # Refused while the run that made it lives.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(descriptor)


def _copy_status(source: Path, target: Path) -> None:
    status = os.stat(source)
    with suppress(PermissionError):
        os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    copy_attributes(source, target)


def _umask() -> int:
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    return mask
