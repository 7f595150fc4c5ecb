"""What is said when this process ends: the report that `MLX_FLASH_REPORT` asks for, and a word
where flash attention was asked for and no route of ours was taken.

Of processes that a launcher has started together, as `mlx.launch` does, the first, rank 0, has the
terminal and `report.json`; the others write `report.RANK.json` beside it.

A name belongs to the first of the processes that run at a time and want it, a program rather than
what it starts, from `enable_flash_attention` until it ends. The others, `report.json` being taken,
write `report.PID.json` beside it; those without a call of attention (helpers that import the
program's main module) write nothing.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import json
import os
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from ..environment import whole_files, workers
from ..environment.announcement import announce, unsaid
from ..environment.log import logger, say
from ..environment.variables import file_named, is_quiet
from ..planning import counts, layers
from ..settings import report_target
from .report import Report, counted, report

_asked = False


def write_at_exit() -> None:
    """Has `MLX_FLASH_REPORT` obeyed when this process exits; asking twice is asking once."""
    global _asked
    target = report_target()
    if _asked or target is None:
        return
    _asked = True
    layers.in_every_call = True
    file = None if target == "-" else _of_rank(file_named(target))
    if file is not None:
        with suppress(OSError):  # told at exit: a folder that is missing now may be there by then
            _is_first(file)
    atexit.register(_write, file, os.getpid())


def _of_rank(file: Path) -> Path:
    """The name for this process among those that were launched together."""
    rank = workers.rank()
    return file.with_name(f"{file.stem}.{rank}{file.suffix}") if rank else file


@lru_cache(maxsize=1)
def speak_at_exit() -> None:
    """Has a program that was told to use flash attention, and of which nobody heard that it runs,
    say why when it exits, unless a report does; asking twice is asking once."""
    atexit.register(_speak, os.getpid(), workers.seconds_of_children())


def _speak(process: int, seconds_of_children: float) -> None:
    # After an error the traceback is what counts.
    failed = hasattr(sys, "last_value")
    on = unsaid()
    if on is None or os.getpid() != process or failed or _asked or workers.is_worker():
        return
    calls = counts.totals().total()
    if calls:
        announce(f"{on}; MLX's own function was best for {counted(calls, 'call')}")
    elif workers.has_children() or workers.seconds_of_children() > seconds_of_children:
        announce(f"{on}; attention is left to the processes that this one started")
    elif not is_quiet():
        logger.warning(
            "%s, but this process made no attention call (MLX_FLASH_QUIET=1 leaves this line out)",
            on,
        )


def _write(file: Path | None, process: int) -> None:
    if os.getpid() != process:  # a forked child leaves the report to its parent
        return
    done = report()
    if file is None:
        if workers.rank() == 0:
            say(str(done))
        return
    try:
        _write_file(file, done)
    except OSError as error:
        logger.warning("flash attention: the report was not written: %s", error)


def _write_file(file: Path, done: Report) -> None:
    content = done.as_dict()
    if not _is_first(file):
        if not content["calls"]:
            return
        taken, file = file, file.with_name(f"{file.stem}.{os.getpid()}{file.suffix}")
        announce(f"flash attention: {taken} is another process's report, this one's is {file.name}")
    handle = whole_files.open_file(file, os.O_WRONLY | os.O_CREAT)
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        if _is_output(handle):
            raise OSError(errno.EINVAL, "the program's own output goes there", str(file))
        opened.truncate(0)
        json.dump(content, opened, indent=2)
        opened.write("\n")


@lru_cache(maxsize=1)
def _is_first(file: Path) -> bool:
    """Whether no other process has the name, which is this one's then: a lock on the file, which
    is made empty if need be, tells the others until this process ends, however it ends. Raises
    OSError where there can be no such file."""
    handle = whole_files.open_file(file, os.O_WRONLY | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    except OSError:  # a file system without locks
        os.close(handle)
    return True


def _is_output(handle: int) -> bool:
    """Whether the file is what standard output or standard error was sent to, under whatever name:
    `/dev/stdout`."""
    for output in (1, 2):
        with suppress(OSError):  # it is closed
            if os.path.samestat(os.fstat(handle), os.fstat(output)):
                return True
    return False
