"""Files and folders that nobody but the user can have put there, or can change.

What lies in a cache is run, or decides what is run: a library, a compiled kernel, the routes that
were measured. On a machine with several users another one must not be able to put it there: by a
folder of the same name in /tmp, by a link, or by a file that all may write. What root owns is
trusted as the user's own is: root can do anything anyway.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path

from . import whole_files

_MOST_LINKS = 40  # as Linux has it


class NotPrivate(PermissionError):
    """Something that others own or can write to, so that it is not used; as text it says which,
    and why."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(errno.EACCES, why, str(path))

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def folder(path: Path, make: int | None = None) -> Path:
    """The folder at `path`, with links resolved, where nobody else can write to it or put another
    one in its place.

    With a mode in `make`, it and the parents that are missing are made, with that mode. Raises
    NotPrivate where it belongs to others or others can write to it, or to a parent (unless that is
    sticky, as /tmp is); FileNotFoundError where it is not there; OSError.
    """
    found = Path("/")
    left = [*reversed(path.absolute().parts[1:])]
    links = 0
    while left:
        name = left.pop()
        if name == "..":
            found = found.parent
            continue
        entry = found / name
        status = _status(entry, make)
        if stat.S_ISLNK(status.st_mode):
            _need_trusted_owner(entry, status)
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = Path(os.readlink(entry))
            found = Path("/") if target.is_absolute() else found
            left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        elif stat.S_ISDIR(status.st_mode):
            _need_private(entry, status, sticky_will_do=True)
            found = entry
        else:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(entry))
    _need_private(found, os.stat(found))
    return found


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the regular file at `path`, which with O_CREAT is made for the user alone.

    Raises NotPrivate where it is a link or no regular file, or where others own it or can write to
    it or to its folder; FileNotFoundError; OSError.
    """
    target = folder(path.parent) / path.name
    try:
        handle = whole_files.open_file(target, flags | os.O_NOFOLLOW, mode=0o600)
    except whole_files.NotRegular as error:
        raise NotPrivate(target, error.why) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotPrivate(target, "it is a link") from None
        raise
    try:
        _need_private(target, os.fstat(handle))
    except BaseException:
        os.close(handle)
        raise
    return handle


def read(path: Path, at_most: int) -> bytes:
    """The content of a file as `open_file` has it. Raises the same, and OSError where it has more
    than `at_most` bytes."""
    return whole_files.read_open(open_file(path), path, at_most)


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Puts `content` in the place of the file in one step, and in that of a link, a pipe or the
    like: in a folder that is the user's alone it is nobody else's loss. Raises as `folder`;
    OSError."""
    whole_files.replace(folder(path.parent) / path.name, content, mode)


def is_private(path: Path) -> bool:
    """Whether there is a file at `path` that `open_file` would open."""
    try:
        os.close(open_file(path))
    except OSError:
        return False
    return True


def _status(entry: Path, make: int | None) -> os.stat_result:
    try:
        return os.lstat(entry)
    except FileNotFoundError:
        if make is None:
            raise
    with suppress(FileExistsError):  # made by another process meanwhile
        os.mkdir(entry, make)
    return os.lstat(entry)


def _need_private(path: Path, status: os.stat_result, sticky_will_do: bool = False) -> None:
    _need_trusted_owner(path, status)
    # In a sticky folder others cannot rename or delete what is not theirs.
    if sticky_will_do and status.st_mode & stat.S_ISVTX:
        return
    by_group = status.st_mode & stat.S_IWGRP and not _is_of_the_user_alone(status.st_gid)
    if by_group or status.st_mode & stat.S_IWOTH:
        raise NotPrivate(path, "other users can write to it (chmod go-w would end that)")


def _need_trusted_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise NotPrivate(path, f"it belongs to another user (uid {status.st_uid})")


def _is_of_the_user_alone(gid: int) -> bool:
    """Whether the Unix group with that number is the one that many systems give to each user,
    named alike; there, what a user makes may be written by that group from the start."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    others = set(group.gr_mem) - {user.pw_name}
    return user.pw_uid != 0 and group.gr_name == user.pw_name and not others
