"""One measurement as a process: started, interrupted when its time is up, its result stamped."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from store import stamp

POLL = 0.2  # seconds
_LAST_WORDS = 10  # seconds that an interrupted measurement has to write what it measured


class Measuring:
    """A command that runs, with `--json` for `path`, until `end` of `time.monotonic`; its result
    gets `code`, what is measured, as `provenance` says it. When the time is up it is interrupted:
    the rows that it has by then are in its file. What was tuned on this machine does not count.
    What it prints goes to the file `log`, if that is given."""

    def __init__(
        self,
        command: str,
        path: Path,
        code: dict[str, Any],
        end: float,
        log: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        program, *arguments = shlex.split(f"{command} --json {shlex.quote(str(path))}")
        own = ["-m", "mlx_flash_runtime.tools.cli"] if program == "mlx-flash" else []
        self._path, self._code, self._end = path, code, end
        self._before = self._written()
        self._begin = time.monotonic()
        self._interrupted = False
        self._folder = tempfile.TemporaryDirectory()
        self._output = log.open("wb") if log else None
        calibration = str(Path(self._folder.name, "calibration.json"))
        self._process = subprocess.Popen(
            [sys.executable, *own, *arguments],
            env={**os.environ, "MLX_FLASH_CALIBRATION": calibration, **(environment or {})},
            stdout=self._output,
            stderr=subprocess.STDOUT if self._output else None,
            start_new_session=True,
            preexec_fn=_hear_interruptions,
        )

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._begin

    def has_ended(self) -> bool:
        """Whether it ended, by itself or because its time is up, with some seconds to write."""
        if self._process.poll() is not None:
            return True
        now = time.monotonic()
        if now >= self._end and not self._interrupted:
            self._interrupted = True
            self._process.send_signal(signal.SIGINT)
        return now >= self._end + _LAST_WORDS

    def close(self) -> bool:
        """Ends it and what it started, if it still runs; whether it ended well, in time."""
        ended_well = self._process.poll() == 0 and not self._interrupted
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._output:
            self._output.close()
        self._folder.cleanup()
        if self._written() != self._before:
            stamp(self._path, self._code | ({} if ended_well else {"complete": False}))
        return ended_well

    def _written(self) -> int | None:
        """When the result was written; None where there is none."""
        return self._path.stat().st_mtime_ns if self._path.exists() else None


def _hear_interruptions() -> None:
    # A shell's background jobs, and what those start, are told to ignore them.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(
    command: str,
    path: Path,
    code: dict[str, Any],
    end: float,
    meanwhile: Callable[[], None],
    log: Path,
) -> bool:
    """Whether the command ended well, and before `end`; `meanwhile` is called while it runs."""
    measuring = Measuring(command, path, code, end, log)
    ended_well = False
    try:
        while not measuring.has_ended():
            meanwhile()
            time.sleep(POLL)
    finally:
        ended_well = measuring.close()
    return ended_well
