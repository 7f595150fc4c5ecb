"""Built libraries in the user's cache folder.

One folder per `toolchain.key`; in it a library is named by the toolchain that made it and by its own content, so that a
damaged file is never loaded. Where there is no toolchain, any library of the folder will do: the compiler is not needed
once it has done its work.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...environment import user_cache
from . import toolchain
from .toolchain import BuildError, Toolchain, short_hash


def folder() -> Path:
    """Where libraries for this MLX, Python, CPU and these sources lie; it need not exist. Raises BuildError where the
    user has no home."""
    try:
        return user_cache.folder() / "cpu_kernel" / toolchain.key()
    except RuntimeError as error:
        raise BuildError(f"there is no cache folder ({error}); XDG_CACHE_HOME names one") from None


def find(tools: Toolchain | None) -> Path | None:
    """The library that `tools` made (the newest of any if None), whole and undamaged, or None."""
    pattern = f"{tools.identity if tools else '*'}-*.so"
    try:
        found = sorted(folder().glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
        return next((path for path in found if path.stem.rpartition("-")[2] == short_hash(path.read_bytes())), None)
    except OSError:
        return None


def publish(library: Path, tools: Toolchain) -> Path:
    """Moves a finished library, which lies in `folder()`, to the name where `find` looks; what was there under other
    names of `tools` goes."""
    target = folder() / f"{tools.identity}-{short_hash(library.read_bytes())}.so"
    before = [path for path in folder().glob(f"{tools.identity}-*.so") if path != target]
    os.replace(library, target)
    for path in (*before, failure(tools)):
        path.unlink(missing_ok=True)
    return target


def failure(tools: Toolchain) -> Path:
    """The file that says why the last build by `tools` failed, where it did."""
    return folder() / f"{tools.identity}.failed"


@contextmanager
def lock() -> Iterator[None]:
    """One build at a time: another process waits. Raises BuildError where the folder cannot be written."""
    import fcntl  # not on Windows, where MLX has no such builds either

    try:
        folder().mkdir(parents=True, exist_ok=True)
        file = open(folder() / "lock", "w")  # noqa: SIM115
    except OSError as error:
        raise BuildError(
            f"the cache folder cannot be written ({error.strerror}: {folder()}); XDG_CACHE_HOME names another"
        ) from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
