"""Work on files in several processes, none of which runs anything from the current folder."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from flash_integrate.errors import FileError
from flash_integrate.project.discover import Found
from flash_integrate.python.processes import from_no_current_folder

Result = TypeVar("Result")


def can_start_processes() -> bool:
    """Whether processes can be started that run nothing from the current folder, which may be that
    of the repo.

    A new Python looks for its modules there, unless it is told not to; one that is forked has them
    already.
    """
    from multiprocessing import get_start_method

    heeded = sys.version_info >= (3, 11) and not sys.flags.ignore_environment
    return heeded or bool(sys.flags.isolated) or get_start_method() == "fork"


def in_processes(
    work: Callable[[Found], Result], shown: Iterable[Found], files: list[Found], jobs: int
) -> list[Result]:
    """What `work` makes of each of `files`, in `jobs` processes if there can be more than this one;
    `shown` are the same files, and shows how far it is."""
    if jobs == 1 or len(files) < 2 or not can_start_processes():
        return [work(found) for found in shown]
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
    from multiprocessing import active_children

    # Ctrl-C at a terminal goes to every process: the others start with it blocked, and leave it to
    # this one.
    own = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with from_no_current_folder():  # its locks start a process that keeps count of them
        pool = ProcessPoolExecutor(jobs, initializer=_adopt, initargs=(work,))
    try:
        # Not `pool.map`, which when interrupted cancels what the pool's own thread is about to
        # report as broken.
        size = max(1, len(files) // (jobs * 8))
        with from_no_current_folder():  # see `can_start_processes`
            parts = [
                pool.submit(_results, files[start : start + size])
                for start in range(0, len(files), size)
            ]
        signal.pthread_sigmask(signal.SIG_SETMASK, own)
        results = (result for part in parts for result in part.result())
        return [result for _, result in zip(shown, results, strict=True)]
    except BrokenExecutor as error:
        raise FileError(
            "a planning process was killed; nothing was written; -j 1 does without"
        ) from error
    except KeyboardInterrupt:
        for child in active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown()


_adopted: Callable[[Found], Any]


def _adopt(work: Callable[[Found], Any]) -> None:
    """Gives a worker process what it is to do with each file."""
    global _adopted
    _adopted = work


def _results(part: Sequence[Found]) -> list[Any]:
    return [_adopted(found) for found in part]
