"""Processes for work that may end the process in which it is done."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

# Tells a new Python not to look for modules in its current folder (from 3.11 on).
_SAFE_PATH = "PYTHONSAFEPATH"

Result = TypeVar("Result")


@contextmanager
def from_no_current_folder() -> Iterator[None]:
    """Processes that start meanwhile look for no module in the current folder, which may be that of
    the repo."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


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
        self.begin(function, *args)
        answer: Result | None = self.answer(seconds)
        return answer

    def begin(self, function: Callable[..., Any], *args: object) -> None:
        """Has a call made; before the next one `answer` is to be asked for what it returns."""
        if self._connection is None or self._owner != os.getpid():
            self._start()
        assert self._connection is not None
        try:
            self._connection.send((function, args))
        except OSError:  # it is dead, which the answer will show
            pass
        except BaseException:
            self.end()
            raise

    def answer(self, seconds: float) -> Any:
        """What the call returned that was begun; None as `in_its_own_process`."""
        assert self._connection is not None
        try:
            if self._connection.poll(seconds):
                return self._connection.recv()
        except (EOFError, OSError):  # it is dead
            pass
        except BaseException:
            self.end()
            raise
        self.end()
        return None

    @property
    def connection(self) -> Connection:
        """Has something to read once the call that was begun has ended, in whatever way."""
        assert self._connection is not None
        return self._connection

    def _start(self) -> None:
        # A process that has MLX loaded can't be forked: the threads of MLX would not be there.
        context = multiprocessing.get_context("spawn" if "mlx" in sys.modules else None)
        own_end, other_end = context.Pipe()
        self._process = context.Process(target=_answer, args=(own_end, other_end), daemon=True)
        # Ctrl-C at a terminal goes to every process: the other starts with it blocked, and leaves
        # it to this one.
        own = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        with from_no_current_folder():
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


@dataclass
class _Call:
    """A call that is to be made, is being made until `deadline` at most, or has been made."""

    function: Callable[..., Any]
    args: tuple[object, ...]
    deadline: float = 0.0
    is_over: bool = False
    answer: Any = None


@dataclass
class OwnProcesses:
    """Up to `most` processes that make calls while this one does something else. Each starts once
    there is a call for it, and has `seconds` for every call."""

    most: int
    seconds: float = 60
    _waiting: deque[_Call] = field(default_factory=deque, init=False)
    _running: list[tuple[OwnProcess, _Call]] = field(default_factory=list, init=False)
    _idle: list[OwnProcess] = field(default_factory=list, init=False)

    def begin(self, function: Callable[..., Result], *args: object) -> Callable[[], Result | None]:
        """Has a call made as soon as a process is free; what this returns waits for its answer,
        which is None as `in_its_own_process` says."""
        call = _Call(function, args)
        self._waiting.append(call)
        self.go_on()
        return lambda: self._answer_to(call)

    def go_on(self) -> None:
        """Takes the answers that are there, and gives the processes that are free their next call:
        to be called now and then while this process does something else."""
        now = time.monotonic()
        ready = wait([process.connection for process, _ in self._running], 0)
        for process, call in list(self._running):
            if process.connection in ready or now > call.deadline:
                self._running.remove((process, call))
                call.answer, call.is_over = process.answer(0), True
                self._idle.append(process)
        while self._waiting and len(self._running) < self.most:
            process = self._idle.pop() if self._idle else OwnProcess()
            call = self._waiting.popleft()
            call.deadline = time.monotonic() + self.seconds
            try:
                process.begin(call.function, *call.args)
            except OSError:  # the system gives no further process
                call.is_over = True
            else:
                self._running.append((process, call))

    def _answer_to(self, call: _Call) -> Any:
        while not call.is_over:
            first = min(call.deadline for _, call in self._running)
            running = [process.connection for process, _ in self._running]
            wait(running, max(0.0, first - time.monotonic()))
            self.go_on()
        return call.answer

    def close(self) -> None:
        """Ends them, whatever they do."""
        for process in (*self._idle, *(process for process, _ in self._running)):
            process.end()


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
