from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Protocol

import pytest

# Who starts the tests in the background of a shell has Ctrl-C ignored, and every process started
# here would inherit it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

SCRIPT = """\
import argparse

from mlx_lm import generate, load

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    args = parser.parse_args()
    print(generate(*load(args.model), "hello"))
"""


class Run(Protocol):
    def __call__(
        self, *args: object, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]: ...


@pytest.fixture(scope="session")
def flash_integrate() -> Run:
    """Runs the command as a process."""

    def run(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "flash_integrate", *map(str, args)]
        return subprocess.run(command, capture_output=True, cwd=cwd)

    return run


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A folder with one script that can be integrated, one library module and one file without
    MLX."""
    (tmp_path / "run.py").write_text(SCRIPT)
    (tmp_path / "model.py").write_text("import mlx.nn as nn\n\nattention = nn.MultiHeadAttention\n")
    (tmp_path / "notes.py").write_text("print('nothing here')\n")
    return tmp_path


def git(repo: Path, *args: str) -> bytes:
    identity = (
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@example.org",
        "-c",
        "core.autocrlf=false",
    )
    return subprocess.run(
        ["git", *identity, *args], cwd=repo, check=True, capture_output=True
    ).stdout


def commit_all(repo: Path) -> None:
    git(repo, "init", "-q")
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "all")
