"""Runs the command on a hostile repo: it has to end, within little memory, and without a
traceback."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import IO

from forked import flash_integrate

Completed = subprocess.CompletedProcess[str]
SCRIPT = """\
from mlx_lm import generate, load

print(generate(*load("tiny"), "hello"))
"""
GIBIBYTE = 1 << 30
ENOUGH_SECONDS = 120  # a run takes one or two; one that waits for a pipe would take for ever


def run(*args: object, cwd: Path | None = None) -> Completed:
    return checked(flash_integrate(*args, cwd=cwd, memory=GIBIBYTE))


def started(*args: object, stdin: int | IO[str] = subprocess.DEVNULL) -> Completed:
    """The same with Python started for it, its output in a pipe."""
    command = [sys.executable, "-m", "flash_integrate", *map(str, args)]
    result = subprocess.run(
        command,
        stdin=stdin,
        capture_output=True,
        timeout=ENOUGH_SECONDS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (GIBIBYTE, GIBIBYTE)),
    )
    return checked(result)


def checked(done: subprocess.CompletedProcess[bytes]) -> Completed:
    """What a run has said, which is no traceback."""
    errors = done.stderr.decode()
    assert "Traceback" not in errors, errors
    assert "please report this" not in errors, errors
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), errors)


def is_patched(path: Path) -> bool:
    return "enable_flash_attention" in path.read_text()


def contents(folder: Path) -> dict[str, bytes | str | None]:
    """What a tree holds: the bytes of a file, the target of a link, None for a folder."""
    found: dict[str, bytes | str | None] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        found[name] = (
            str(path.readlink())
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else None
        )
    return found
