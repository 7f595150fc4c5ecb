"""Writes results to disk: each file in one step."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from flash_integrate.errors import FileError


def write(path: Path, before: bytes, after: bytes) -> None:
    """Replaces a file in one step; its permissions stay, and its owner where that is allowed.

    A file with several names (hard links) becomes one of its own, as when git writes it: what the other names stand for
    may be another program's, such as uv's cache.

    Raises:
        FileError: the file is not what was read, or can't be written; it is left as it is.
    """
    try:
        if path.read_bytes() != before:
            raise FileError("changed on disk while the tool was reading it; run the tool again")
        if not os.access(path, os.W_OK):
            raise FileError("not writable")
        status = path.stat()
        _replace(path, after, status.st_mode, owner=(status.st_uid, status.st_gid))
    except OSError as error:
        raise FileError(error.strerror or str(error)) from error


def create(path: Path, data: bytes) -> None:
    """Writes a new file in one step, and the folders above it that are missing.

    Raises:
        FileError: there is a file already, or it can't be written.
    """
    try:
        if os.path.lexists(path):
            raise FileError("is there already")
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, data, 0o666 & ~_umask())
    except OSError as error:
        raise FileError(error.strerror or str(error)) from error


def delete(path: Path, before: bytes) -> None:
    """Removes a file.

    Raises:
        FileError: the file is not what was read, or can't be removed.
    """
    try:
        if path.read_bytes() != before:
            raise FileError("changed on disk while the tool was reading it; run the tool again")
        path.unlink()
    except OSError as error:
        raise FileError(error.strerror or str(error)) from error


def _umask() -> int:
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    return mask


def _replace(path: Path, data: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if owner is not None:
            with suppress(PermissionError):
                os.chown(temporary, *owner)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:  # also Ctrl-C, at any point: no temporary file is left behind
        temporary.unlink(missing_ok=True)
        raise
