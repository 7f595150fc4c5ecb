"""What can go wrong with one file: always reported with its path and line, never fatal to the rest
of the run."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FileError(Exception):
    """A file that is reported as failed and left alone."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class UnreadableSource(FileError):
    """The file can't be read, decoded or parsed."""


class UnsafeRewrite(FileError):
    """A rewrite that does not hold one of the four properties of `verify`."""


class CannotRemove(FileError):
    """An inserted statement that can't be taken out as whole lines."""


@contextmanager
def own_errors() -> Iterator[None]:
    """Turns an error that met one file into a FileError: it is not to take other files with it.

    What a file or the machine can bring about is told as such; whatever else is left is this
    tool's own fault.
    """
    try:
        yield
    except FileError:
        raise
    except Exception as error:
        raise own_error(error) from error


def own_error(error: Exception) -> FileError:
    """The report of such an error; where it is this tool's own fault, with the line of the tool
    that raised it."""
    if isinstance(error, OSError):
        return FileError(error.strerror or str(error))
    if isinstance(error, UnicodeError):
        return FileError(f"its text does not fit its encoding: {error}")
    if isinstance(error, RecursionError):
        return FileError("nested too deeply for this tool")
    if isinstance(error, MemoryError):
        return FileError("takes more memory than there is")
    frame = traceback.extract_tb(error.__traceback__)[-1]
    said = f"{type(error).__name__}: {error}".splitlines()[0][:100]
    return FileError(
        f"flash-integrate failed on it, please report this: {said} ({Path(frame.filename).name}:{frame.lineno})"
    )
