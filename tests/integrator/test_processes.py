"""Work in a process of its own: one process for many calls, a new one after its death."""

from __future__ import annotations

import os
import signal

from flash_integrate.python.processes import OwnProcess, in_its_own_process


def _end(code: int) -> None:
    os._exit(code)


def _kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_process_makes_all_calls_and_ends() -> None:
    process = OwnProcess()
    first = process.call(60, os.getpid)
    assert first is not None
    assert first != os.getpid()
    assert process.call(60, os.getpid) == first
    process.end()
    second = process.call(60, os.getpid)
    assert second not in (None, first)
    process.end()


def test_a_call_that_ends_the_process_gives_none_and_the_next_one_a_new_process() -> None:
    process = OwnProcess()
    assert process.call(60, max, 1, 2) == 2
    assert process.call(60, _end, 3) is None
    assert process.call(60, _kill_itself) is None
    assert process.call(60, max, 3, 4) == 4
    process.end()


def test_one_call_by_itself() -> None:
    assert in_its_own_process(60, max, 1, 2) == 2
    assert in_its_own_process(60, _end, 0) is None
