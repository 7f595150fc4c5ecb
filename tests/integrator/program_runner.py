"""Runs Python programs, each in a process of its own that is forked from one that has the standard
library at hand.

Starting an interpreter takes ten times as long as these programs run. `Runner` is the side that
tests use; as a script this file is the other side: it reads a job per line from standard input, as
JSON, and answers with a line each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

PRELOADED = [
    "argparse",
    "asyncio",
    "contextlib",
    "copy",
    "dataclasses",
    "functools",
    "json",
    "runpy",
    "types",
]


@dataclass(frozen=True)
class Ran:
    """How a program ended."""

    code: int
    stdout: str
    stderr: str


class Runner:
    """A context in which programs can be run."""

    def __enter__(self) -> Runner:
        command = [sys.executable, "-u", __file__]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def run(self, path: Path, argv: list[str], packages: Path) -> Ran:
        """Runs the script at `path`, the modules in `packages` importable."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(path), argv, str(packages)]) + "\n")
        self._process.stdin.flush()
        return Ran(*json.loads(self._process.stdout.readline()))


def serve() -> None:
    for module in PRELOADED:
        __import__(module)
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))))


def answer(path: str, argv: list[str], packages: str) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        child = os.fork()
        if child == 0:
            os.dup2(stdout.fileno(), 1)
            os.dup2(stderr.fileno(), 2)
            run_program(path, argv, packages)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read().decode())
    return code, texts[0], texts[1]


def run_program(path: str, argv: list[str], packages: str) -> None:
    """Runs a script as `python path argv...` would in its folder, and ends this process as it
    would."""
    import runpy

    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    sys.argv = [path, *argv]
    os.chdir(os.path.dirname(path))
    sys.path[:1] = [os.path.dirname(path), packages]
    code = 0
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
