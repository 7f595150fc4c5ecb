"""Work in processes of its own: one process for many calls, a new one after its death; several
beside each other."""

from __future__ import annotations

import os
import resource
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from flash_integrate.python.processes import OwnProcess, OwnProcesses, in_its_own_process


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


def _number_and_process(number: int) -> tuple[int, int]:
    return number, os.getpid()


def test_more_calls_than_processes() -> None:
    """Answers may be waited for in any order."""
    with closing(OwnProcesses(2)) as processes:
        answers = [processes.begin(_number_and_process, number) for number in range(7)]
        found = [answer() for answer in reversed(answers)]
    assert [item[0] for item in found if item] == [6, 5, 4, 3, 2, 1, 0]
    assert len({item[1] for item in found if item}) <= 2


def _wait_for(path: Path) -> str:
    while not path.exists() or not path.stat().st_size:
        time.sleep(0.01)
    return path.read_text()


def test_calls_are_made_beside_each_other_and_beside_this_process(tmp_path: Path) -> None:
    """The first call ends after the second, that one after what happens here."""
    here, there = tmp_path / "here", tmp_path / "there"
    with closing(OwnProcesses(2)) as processes:
        first = processes.begin(_wait_for, there)
        second = processes.begin(_wait_for, here)
        third = processes.begin(Path.write_text, there, "made there")
        here.write_text("made here")
        assert [answer() for answer in (first, second, third)] == ["made there", "made here", 10]


def test_a_call_that_ends_one_of_the_processes_ends_no_other_call() -> None:
    with closing(OwnProcesses(2)) as processes:
        answers = [
            processes.begin(function, *args)
            for function, args in [(max, (1, 2)), (_end, (3,)), (_kill_itself, ())]
        ]
        rest = [processes.begin(max, number, 0) for number in range(4)]
        assert [answer() for answer in answers] == [2, None, None]
        assert [answer() for answer in rest] == [0, 1, 2, 3]


def test_a_call_that_takes_too_long_is_ended() -> None:
    with closing(OwnProcesses(1, seconds=0.1)) as processes:
        assert processes.begin(time.sleep, 3600)() is None


def test_what_is_still_running_ends_with_the_processes() -> None:
    with closing(OwnProcesses(1)) as processes:
        pid = processes.begin(os.getpid)()
        processes.begin(time.sleep, 3600)
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_where_no_process_can_be_started_there_is_no_answer() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with closing(OwnProcesses(1)) as processes:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            answers = [processes.begin(max, number, 0) for number in range(2)]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert [answer() for answer in answers] == [None, None]
        assert processes.begin(max, 1, 2)() == 2
