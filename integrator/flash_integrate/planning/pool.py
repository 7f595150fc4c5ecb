"""Planning in several processes, none of which runs anything from the current folder."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence

from flash_integrate.errors import FileError
from flash_integrate.planning.outcome import Outcome
from flash_integrate.project.discover import Found

# Tells a new Python not to look for modules in its current folder (from 3.11 on).
_SAFE_PATH = "PYTHONSAFEPATH"

OutcomeOf = Callable[[Found], Outcome]


def can_start_processes() -> bool:
    """Whether processes can be started that run nothing from the current folder, which may be that
    of the repo.

    A new Python looks for its modules there, unless it is told not to; one that is forked has them
    already.
    """
    from multiprocessing import get_start_method

    heeded = sys.version_info >= (3, 11) and not sys.flags.ignore_environment
    return heeded or bool(sys.flags.isolated) or get_start_method() == "fork"


def plan_in_processes(
    outcome_of: OutcomeOf, planned: Iterable[Found], files: list[Found], jobs: int
) -> list[Outcome]:
    """The outcomes of `files`, for each of which `outcome_of` is asked in one of `jobs` processes;
    `planned` are the same files, and shows how far it is."""
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
    from multiprocessing import active_children

    # Ctrl-C at a terminal goes to every process: the others start with it blocked, and leave it to
    # this one.
    own = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    safe_path = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"  # see `can_start_processes`
    pool = ProcessPoolExecutor(jobs, initializer=_adopt, initargs=(outcome_of,))
    try:
        # Not `pool.map`, which when interrupted cancels what the pool's own thread is about to
        # report as broken.
        size = max(1, len(files) // (jobs * 8))
        parts = [
            pool.submit(_outcomes, files[start : start + size])
            for start in range(0, len(files), size)
        ]
        signal.pthread_sigmask(signal.SIG_SETMASK, own)
        outcomes = (outcome for part in parts for outcome in part.result())
        return [outcome for _, outcome in zip(planned, outcomes, strict=True)]
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
        if safe_path is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = safe_path


_adopted: OutcomeOf


def _adopt(outcome_of: OutcomeOf) -> None:
    """Gives a worker process what it is to ask of each file."""
    global _adopted
    _adopted = outcome_of


def _outcomes(part: Sequence[Found]) -> list[Outcome]:
    return [_adopted(found) for found in part]
