"""The package's one logger, and its way to standard error, which never stops a program."""

from __future__ import annotations

import io
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

logger = logging.getLogger("mlx_flash_runtime")


def announce(message: str) -> None:
    """Logs `message` as information; where nobody has set up logging, it goes to stderr as warnings would anyway."""
    if logger.hasHandlers():
        logger.info(message)
    else:
        say(message)


def say(message: str) -> None:
    """Writes a line to standard error. Where that is full, closed, not there, or nobody reads it, the line is lost and
    nothing else: no exception, no signal, no other exit status, nothing on standard output."""
    stream = sys.stderr
    if stream is None:  # then `print` would take standard output
        return
    with suppress(Exception), _without_sigpipe():
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        if isinstance(stream, io.TextIOWrapper) and isinstance(raw, io.FileIO):
            # Past the buffer: Python would try to write what is left in it when the program ends, and change the
            # program's exit status where it cannot.
            stream.flush()
            raw.write(f"{message}\n".encode(stream.encoding, "backslashreplace"))
        else:
            print(message, file=stream)


@contextmanager
def _without_sigpipe() -> Iterator[None]:
    """Has a write to a pipe that nobody reads raise BrokenPipeError, also where the program has asked to be ended by
    the signal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        yield
    except BrokenPipeError:
        if signal.SIGPIPE in signal.sigpending():
            signal.sigwait({signal.SIGPIPE})
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_left_to_logging(record: logging.LogRecord) -> bool:
    """Whether the program has set up logging; else warnings go to standard error here: logging's own way there leaves
    in the buffer what it cannot write."""
    if logger.hasHandlers():
        return True
    if record.levelno >= logging.WARNING:
        say(record.getMessage())
    return False


logger.addFilter(_is_left_to_logging)
