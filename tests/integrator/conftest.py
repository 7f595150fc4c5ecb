from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

import forked

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
    return forked.flash_integrate


@pytest.fixture(scope="session")
def started() -> Run:
    """Runs the command as its user starts it, with hashes of its own each time."""

    def run(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "flash_integrate", *map(str, args)]
        return subprocess.run(command, capture_output=True, cwd=cwd)

    return run


@pytest.fixture(scope="session")
def runner() -> Iterator[forked.Runner]:
    """Runs programs that import a part of the standard library."""
    preloaded = ["argparse", "asyncio", "contextlib", "copy", "dataclasses", "functools", "json"]
    with forked.Runner(*preloaded, "types") as runner:
        yield runner


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
