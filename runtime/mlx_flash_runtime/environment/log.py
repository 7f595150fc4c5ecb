"""The package's one logger, and its way to standard error, which never stops a program."""

from __future__ import annotations

import io
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

logger = logging.getLogger("mlx_flash_runtime")


def say(message: str) -> None:
    """Writes a line to standard error. Where that is full, closed, not there, or nobody reads it,
    the line is lost and nothing else: no exception, no signal, no other exit status, nothing on
    standard output."""
    stream = sys.stderr
    if stream is None:  # then `print` would take standard output
        return
    with suppress(Exception), _without_sigpipe():
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        if isinstance(stream, io.TextIOWrapper) and isinstance(raw, io.FileIO):
            # Past the buffer: what cannot be written would stay in it, for the program's next
            # line, or for the end, where SIGPIPE is not held back.
            stream.flush()
            raw.write(f"{message}\n".encode(stream.encoding, "backslashreplace"))
        else:
            print(message, file=stream)


@contextmanager
def _without_sigpipe() -> Iterator[None]:
    """Has a write to a pipe that nobody reads raise BrokenPipeError, also where the program has
    asked to be ended by the signal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        yield
    except BrokenPipeError:
        if signal.SIGPIPE in signal.sigpending():
            signal.sigwait({signal.SIGPIPE})
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _handle(record: logging.LogRecord) -> None:
    """Where the program has set up logging, its handlers have the record, and what they raise
    stops here. Else warnings go to standard error by `say`: by logging's own last resort, a
    standard error that was closed is an exception."""
    with suppress(Exception), _without_sigpipe():
        if logger.hasHandlers():
            _handle_as_set_up(record)
        elif record.levelno >= logging.WARNING:
            say(record.getMessage())


_handle_as_set_up = logger.handle
logger.handle = _handle  # type: ignore[method-assign]
