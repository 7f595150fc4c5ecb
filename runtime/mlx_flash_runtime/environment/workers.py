"""Whether this process is one of several of the same program: what concerns the program is said by
the first of them."""

from __future__ import annotations

import os
import resource
import sys

# Where a launcher says which of its processes this is: `mlx.launch`, and the Open MPI that it may
# use.
_RANKS = ("MLX_RANK", "OMPI_COMM_WORLD_RANK")
# What the first process leaves to those that it starts: its number and its program's file.
_SAID_BY = "_MLX_FLASH_SAID_BY"
# What the program has chosen last, for the processes that it starts: `off`, `on` or `on 64`.
_CHOSEN = "_MLX_FLASH_CHOSEN"


def is_worker() -> bool:
    """Whether another process of this program speaks for it: in all but the first that a launcher
    has started, in a process that `multiprocessing` has started, by fork or spawn, and in one that
    was started, whichever way, with the file of a program that has spoken."""
    if rank():
        return True
    process = sys.modules.get("multiprocessing.process")  # loaded in those that it has started
    if process is not None and process.parent_process() is not None:
        return True
    number, _, program = os.environ.get(_SAID_BY, "").partition(" ")
    return bool(program) and number != str(os.getpid()) and program == _program()


def rank() -> int:
    """The number of this process among those that a launcher has started together; 0 for the first
    and without one."""
    numbers = [os.environ.get(name, "") for name in _RANKS]
    return next((int(number) for number in numbers if number.isdecimal()), 0)


def speak_for_workers() -> None:
    """Has processes that this one starts know that it has spoken."""
    program = _program()
    if program:
        os.environ[_SAID_BY] = f"{os.getpid()} {program}"


def seconds_of_children() -> float:
    """The processor time of the processes that this one has started and seen end."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def has_children() -> bool:
    """Whether processes run that `multiprocessing` has started for this one."""
    module = sys.modules.get("multiprocessing")
    return module is not None and bool(module.active_children())


def hand_on(enabled: bool, block_size: int | None) -> None:
    """Leaves a choice to this process's own later calls and to the processes that it starts."""
    words = ["on" if enabled else "off", *([str(block_size)] if block_size else [])]
    os.environ[_CHOSEN] = " ".join(words)


def handed_on() -> tuple[bool, int | None] | None:
    """The choice that this process has made, or the one that started it; None if neither has."""
    word, _, size = os.environ.get(_CHOSEN, "").partition(" ")
    return (word == "on", int(size) if size.isdecimal() else None) if word else None


def _program() -> str:
    """The file that Python was started with, `""` without one."""
    file = sys.argv[0] if sys.argv else ""
    return os.path.abspath(file) if os.path.isfile(file) else ""
