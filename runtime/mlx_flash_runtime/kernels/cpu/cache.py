"""Built libraries in the user's cache folder.

One folder per `toolchain.key`; in it a library is named by the toolchain that made it and by its
own content, so that a damaged file is never loaded. Where there is no toolchain, any library of
the folder will do: the compiler is not needed once it has done its work. What others own or can
write to is not used: see `private_files`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from ...environment import private_files, user_cache, whole_files
from ...environment.log import logger
from . import toolchain
from .toolchain import BuildError, Toolchain, short_hash

UNFINISHED = "build-"  # how the name of a folder starts in which a build is going on
# Bytes that are read at most: a library has a hundredth of that, why a build failed is a line.
_MOST_LIBRARY = 2**28
_MOST_WORDS = 2**16


class UntrustedFolder(BuildError):
    """The cache folder is one that others own or can write to."""

    def __init__(self, error: private_files.NotPrivate) -> None:
        super().__init__(f"the cache folder is not used ({error}); XDG_CACHE_HOME names another")


def folder() -> Path:
    """Where libraries for this MLX, Python, CPU and these sources lie; it need not exist. Raises
    BuildError where the user has no home."""
    try:
        return user_cache.folder() / "cpu_kernel" / toolchain.key()
    except RuntimeError as error:
        raise BuildError(f"there is no cache folder ({error}); XDG_CACHE_HOME names one") from None


def find(tools: Toolchain | None) -> Path | None:
    """The library that `tools` made (the newest of any if None), whole and undamaged, or None. One
    that others own or can write to is left alone, with a warning. Raises UntrustedFolder where
    the folder is such a one."""
    try:
        place = private_files.folder(folder())
        pattern = f"{tools.identity if tools else '*'}-*.so"
        found = sorted(place.glob(pattern), key=lambda path: path.lstat().st_mtime, reverse=True)
    except private_files.NotPrivate as error:
        raise UntrustedFolder(error) from None
    except OSError:
        return None
    return next(filter(_is_whole, found), None)


def _is_whole(library: Path) -> bool:
    try:
        content = private_files.read(library, _MOST_LIBRARY)
    except FileNotFoundError:  # another process has replaced it
        return False
    except OSError as error:
        _warn(f"flash attention: a library in the cache is not used: {error}")
        return False
    return library.stem.rpartition("-")[2] == short_hash(content)


@lru_cache(maxsize=64)
def _warn(message: str) -> None:
    """Logs a message that was not logged before."""
    logger.warning("%s", message)


def publish(library: Path, tools: Toolchain) -> Path:
    """Moves a finished library out of the folder in which it was built to the name where `find`
    looks; what was there under other names of `tools` goes."""
    place = library.parent.parent
    target = place / f"{tools.identity}-{short_hash(library.read_bytes())}.so"
    before = [path for path in place.glob(f"{tools.identity}-*.so") if path != target]
    os.chmod(library, 0o700)  # a linker lets others write it where the umask does
    os.replace(library, target)
    for path in (*before, _failure(tools)):
        path.unlink(missing_ok=True)
    return target


def failure(tools: Toolchain) -> str:
    """Why the last build by `tools` failed; empty where none did."""
    try:
        kept = private_files.read(_failure(tools), _MOST_WORDS)
    except OSError:
        return ""
    lines = kept.decode(errors="replace").splitlines()
    return lines[0] if lines else ""


def note_failure(tools: Toolchain, error: BuildError) -> None:
    """Keeps `failure`, unless the disk is full or the like: the next process then tries again. In
    `lock` only."""
    with suppress(OSError):
        private_files.write(_failure(tools), f"{error}\n".encode(errors="replace"))


def write_log(text: str) -> Path | None:
    """Keeps what a command printed; the file, or None where it cannot be written. In `lock`
    only."""
    log = folder() / "build.log"
    try:
        private_files.write(log, text.encode(errors="replace"))
    except OSError:
        return None
    return log


def tidy() -> None:
    """Takes away what a build that was killed has left. In `lock` only."""
    for left_over in folder().glob(f"{UNFINISHED}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    for left_over in folder().glob(f"{whole_files.UNFINISHED}*"):
        left_over.unlink(missing_ok=True)


def _failure(tools: Toolchain) -> Path:
    return folder() / f"{tools.identity}.failed"


@contextmanager
def lock() -> Iterator[Path]:
    """The folder, made where it is not there, for one build at a time: another process waits.
    Raises BuildError where it cannot be written, or where others can."""
    import fcntl  # not on Windows, where MLX has no such builds either

    try:
        place = private_files.folder(folder(), make=0o700)
        handle = private_files.open_file(place / "lock", os.O_RDWR | os.O_CREAT)
    except private_files.NotPrivate as error:
        raise UntrustedFolder(error) from None
    except OSError as error:
        raise BuildError(
            f"the cache folder cannot be written ({error.strerror}: {folder()}); "
            "XDG_CACHE_HOME names another"
        ) from None
    with os.fdopen(handle, "r+b"):
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield place
