"""One run of a script as a process of its own: time, memory, output, and the runtime's report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_GRACE = 60.0  # seconds that a server has to end after it was interrupted
# Seconds that a server has to end by itself where its client failed: it may be why.
_LAST_WORDS = 1.0


@dataclass(frozen=True)
class Outcome:
    """What a finished process left behind. `seconds` is wall time; `peak_bytes` the most memory it
    had at a time, as the operating system counts it (not what a GPU holds); `report` the
    runtime's, or None where it wrote none."""

    seconds: float
    peak_bytes: int
    returncode: int
    stdout: str
    stderr: str
    report: dict[str, Any] | None
    client_failed: bool = False  # then the status is the client's


class TimedOut(Exception):
    """The process did not end in time and was ended, with whatever it had started."""


def run(
    command: Sequence[str],
    *,
    disabled: bool,
    stdin: Path | None,
    timeout: float,
    client: Sequence[str] | None = None,
) -> Outcome:
    """Runs `command` to its end, with MLX_FLASH_DISABLE=1 if `disabled`; its stdin is a file or
    empty.

    A server gets a `client`, a command of its own: when that has ended, `command` is interrupted,
    as by Ctrl-C, with whatever status that gives it. The time is then that until the client's end,
    and stdout the client's. A server that fails before it is interrupted is the outcome itself.

    Raises TimedOut, and OSError where a program cannot be started.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        environment = {
            **os.environ,
            "MLX_FLASH_REPORT": str(report),
            "MLX_FLASH_DISABLE": "1" if disabled else "",
        }
        with (
            open(stdin or os.devnull, "rb") as source,
            open(Path(folder) / "stdout", "w+b") as out,
            open(Path(folder) / "stderr", "w+b") as err,
        ):
            start = time.perf_counter()
            # In a session of its own, so that a script's own children end with it.
            child = subprocess.Popen(
                command,
                env=environment,
                stdin=source,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            visit, ended = (None, None) if client is None else _visit(child.pid, client, timeout)
            seconds = time.perf_counter() - start
            status, usage = ended or _wait(child.pid, timeout if visit is None else _GRACE)
            seconds = time.perf_counter() - start if visit is None else seconds
            child.returncode = os.waitstatus_to_exitcode(status)  # reaped here, not by Popen
            # macOS counts in bytes, Linux in KiB.
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            if visit is None or (ended is not None and child.returncode):
                return Outcome(
                    seconds, peak, child.returncode, _text(out), _text(err), _report(report)
                )
            failed = visit.returncode != 0
            return Outcome(
                seconds, peak, visit.returncode, visit.stdout, visit.stderr, _report(report), failed
            )


def _visit(
    pid: int, client: Sequence[str], timeout: float
) -> tuple[subprocess.CompletedProcess[str], tuple[int, Any] | None]:
    """Runs the client of the server `pid`, then interrupts the server. How the client ended, and
    how the server did where it ended before it was interrupted."""
    try:
        done = subprocess.run(
            client, capture_output=True, text=True, errors="replace", timeout=timeout, check=False
        )
        ended = _ended(pid, within=_LAST_WORDS if done.returncode else 0.0)
    except BaseException as error:  # also an interruption: nothing is left running
        _kill(pid)
        os.wait4(pid, 0)
        if isinstance(error, subprocess.TimeoutExpired):
            raise TimedOut from None
        raise
    if ended is None:
        os.killpg(pid, signal.SIGINT)
    return done, ended


def _ended(pid: int, within: float) -> tuple[int, Any] | None:
    """The status and the usage of the process, or None where it has not ended `within` that many
    seconds."""
    deadline = time.monotonic() + within
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return status, usage
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.02)


def _wait(pid: int, timeout: float) -> tuple[int, Any]:
    timed_out = threading.Event()

    def end() -> None:
        timed_out.set()
        _kill(pid)

    timer = threading.Timer(timeout, end)
    timer.start()
    try:
        _, status, usage = os.wait4(pid, 0)
    except BaseException:  # an interruption: nothing is left running
        _kill(pid)
        os.wait4(pid, 0)
        raise
    finally:
        timer.cancel()
    if timed_out.is_set():
        raise TimedOut
    return status, usage


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode("utf-8", "replace"))


def _report(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
