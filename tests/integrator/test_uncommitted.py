"""What git could not give back is not written over without --force, and git is asked once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from conftest import SCRIPT, Run, commit_all


def test_a_file_that_git_ignores_is_not_written_over(flash_integrate: Run, repo: Path) -> None:
    (repo / ".gitignore").write_text("scratch/\n")
    (repo / "scratch").mkdir()
    (repo / "scratch" / "try.py").write_text(SCRIPT)
    commit_all(repo)
    result = flash_integrate("scratch/try.py", cwd=repo)
    assert (result.returncode, b"scratch/try.py" in result.stderr) == (2, True)
    assert (repo / "scratch" / "try.py").read_text() == SCRIPT
    assert flash_integrate("scratch/try.py", "--force", cwd=repo).returncode == 0
    assert (repo / "scratch" / "try.py").read_text() != SCRIPT


def test_git_is_asked_once_for_all_files(
    flash_integrate: Run,
    repo: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(5):
        (repo / f"run_{number}.py").write_text(SCRIPT)
    commit_all(repo)
    tools = tmp_path_factory.mktemp("tools")
    (tools / "git").write_text(
        f'#!/bin/sh\necho "$@" >> "{tools}/log"\nexec "{shutil.which("git")}" "$@"\n'
    )
    (tools / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    assert b"6 changed" in flash_integrate(repo).stderr
    asked = (tools / "log").read_text().splitlines()
    assert len([line for line in asked if "cat-file" in line.split()]) == 1, asked


def test_a_hard_link_becomes_a_file_of_its_own(
    flash_integrate: Run, repo: Path, tmp_path: Path
) -> None:
    other = tmp_path.with_name(f"{tmp_path.name}-cache")
    os.link(repo / "run.py", other)
    flash_integrate(repo)
    assert (repo / "run.py").read_text() != SCRIPT
    assert other.read_text() == SCRIPT
