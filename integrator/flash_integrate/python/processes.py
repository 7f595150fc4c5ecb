"""A process for work that may end the process in which it is done."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeVar

Result = TypeVar("Result")


def in_its_own_process(
    seconds: float, function: Callable[..., Result], *args: object
) -> Result | None:
    """What a function returns; None if its process ends without an answer, or gives none in so
    many seconds."""
    process = OwnProcess()
    try:
        return process.call(seconds, function, *args)
    finally:
        process.end()


class OwnProcess:
    """A process that makes one call after the other. It starts with the first, anew after one that
    it did not survive, and ends with the process that has it."""

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._owner = 0

    def call(self, seconds: float, function: Callable[..., Result], *args: object) -> Result | None:
        """What a function returns; None as `in_its_own_process`."""
        if self._connection is None or self._owner != os.getpid():
            self._start()
        assert self._connection is not None
        try:
            self._connection.send((function, args))
            if self._connection.poll(seconds):
                answer: Result = self._connection.recv()
                return answer
        except (EOFError, OSError):  # it is dead
            pass
        except BaseException:
            self.end()
            raise
        self.end()
        return None

    def _start(self) -> None:
        # A process that has MLX loaded can't be forked: the threads of MLX would not be there.
        context = multiprocessing.get_context("spawn" if "mlx" in sys.modules else None)
        own_end, other_end = context.Pipe()
        self._process = context.Process(target=_answer, args=(own_end, other_end), daemon=True)
        # Ctrl-C at a terminal goes to every process: the other starts with it blocked, and leaves
        # it to this one.
        own = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, own)
        other_end.close()
        self._connection = own_end
        self._owner = os.getpid()

    def end(self) -> None:
        """Ends it, whatever it does."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.join()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None


def _answer(far_end: Connection, connection: Connection) -> None:
    faulthandler.disable()  # its death is expected, and nobody's news
    far_end.close()  # so that it ends when the other process does, however that happens
    while True:
        try:
            function, args = connection.recv()
            result = function(*args)
            connection.send(result)
        except (EOFError, BrokenPipeError):
            return
