"""Programs that are run for what they make, not for what they print, and that end with all that
they started."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

_KEPT = 2**16  # bytes of the beginning of what is printed, and as many of its end


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Starts `command` with nothing to read, in a session of its own. Raises OSError where it
    cannot be."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[bytes], seconds: float) -> str:
    """Waits for the end of a process of `start`; what it printed, of much only the beginning and
    the end.

    Raises subprocess.TimeoutExpired after so many seconds. Whatever is raised, by Ctrl-C too, the
    process is ended before, with all that it started.
    """
    printed = _Excerpt()
    deadline = time.monotonic() + seconds
    assert process.stdout is not None
    with process.stdout as output:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(output, selectors.EVENT_READ)
                while True:
                    left = deadline - time.monotonic()
                    if left <= 0 or not selector.select(left):
                        raise subprocess.TimeoutExpired(process.args, seconds)
                    data = os.read(output.fileno(), _KEPT)
                    if not data:
                        break
                    printed.add(data)
            process.wait(max(1.0, deadline - time.monotonic()))
        except BaseException:
            # Before its output is closed, by which a process that writes would end otherwise.
            kill(process)
            process.wait()
            raise
    return printed.text()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a process of `start`, and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class _Excerpt:
    """The beginning and the end of bytes of any number."""

    def __init__(self) -> None:
        self._head, self._tail, self._left_out = b"", b"", 0

    def add(self, data: bytes) -> None:
        space = _KEPT - len(self._head)
        self._head += data[:space]
        tail = self._tail + data[space:]
        self._tail = tail[-_KEPT:]
        self._left_out += len(tail) - len(self._tail)

    def text(self) -> str:
        gap = b""
        if self._left_out:
            gap = f"\n... {self._left_out:,} bytes are left out ...\n".encode()
        return (self._head + gap + self._tail).decode(errors="replace")
