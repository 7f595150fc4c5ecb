"""A process for work that may end the process in which it is done."""

from __future__ import annotations

import faulthandler
import multiprocessing
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

Result = TypeVar("Result")


def in_its_own_process(
    seconds: float, function: Callable[..., Result], *args: object
) -> Result | None:
    """What a function returns; None if its process ends without an answer, or gives none in so
    many seconds."""
    # A process that has MLX loaded can't be forked: the threads of MLX would not be there.
    context = multiprocessing.get_context("spawn" if "mlx" in sys.modules else None)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, args))
    # Ctrl-C at a terminal goes to every process: the other starts with it blocked, and leaves it
    # to this one.
    own = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    process.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, own)
    sender.close()
    try:
        answer: Result | None = receiver.recv() if receiver.poll(seconds) else None
    except EOFError:  # it is dead
        answer = None
    finally:
        process.kill()
        process.join()
    return answer


def _answer(sender: Connection, function: Callable[..., object], args: tuple[Any, ...]) -> None:
    faulthandler.disable()  # its death is expected, and nobody's news
    sender.send(function(*args))
