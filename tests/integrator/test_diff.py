"""Diffs that git and patch take, whatever the file is called and however its lines end."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import SCRIPT, Run, commit_all, git

NAMES = [
    "with blank/run me.py",
    'quo"te.py',
    "back\\slash.py",
    "tab\tinside.py",
    "new\nline.py",
    "h\u00e9.py",
    "\x7f.py",
]
ENDINGS = {
    "a return inside a line": SCRIPT.encode() + b"# one\rlast = 1\n",
    "returns alone": SCRIPT.encode().replace(b"\n", b"\r"),
    "returns alone, the last line without": SCRIPT.encode().replace(b"\n", b"\r").rstrip(b"\r"),
    "all three": SCRIPT.encode().replace(b"\n", b"\r\n", 3).replace(b"    args", b"\r    args"),
}


def dry_run(flash_integrate: Run, repo: Path, *options: str) -> bytes:
    return flash_integrate(".", "--dry-run", *options, cwd=repo).stdout


def applied_as_it_would_be_written(flash_integrate: Run, repo: Path, *command: str) -> bytes:
    """Holds the files after `command` has read the diff against those that the tool writes, there
    and back; the diffs."""
    before = {path: path.read_bytes() for path in repo.rglob("*.py")}
    diffs = b""
    for options in ([], ["--revert"]):
        diff = dry_run(flash_integrate, repo, *options)
        diffs += diff
        copy = repo.with_name("copy")
        shutil.copytree(repo, copy)
        applied = subprocess.run(command, input=diff, cwd=copy, capture_output=True)
        assert applied.returncode == 0, applied.stdout + applied.stderr
        flash_integrate(".", *options, "--force", cwd=repo)
        assert all(
            (copy / path.relative_to(repo)).read_bytes() == path.read_bytes() for path in before
        )
        shutil.rmtree(copy)
    assert {path: path.read_bytes() for path in before} == before
    return diffs


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    top = tmp_path / "repo"
    top.mkdir()
    git(top, "init", "-q")
    return top


@pytest.mark.parametrize(
    "command", [["git", "apply"], ["patch", "-p1"]], ids=lambda command: command[0]
)
def test_names(flash_integrate: Run, checkout: Path, command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    for name in NAMES:
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text(SCRIPT)
    applied_as_it_would_be_written(flash_integrate, checkout, *command)


def test_names_are_written_as_git_writes_them(flash_integrate: Run, checkout: Path) -> None:
    for name in NAMES:
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text(SCRIPT)
    commit_all(checkout)
    diff = dry_run(flash_integrate, checkout)
    flash_integrate(".", cwd=checkout)
    heads = (b"diff ", b"--- ", b"+++ ")
    ours, theirs = (
        [line for line in text.split(b"\n") if line.startswith(heads)]
        for text in (diff, git(checkout, "-c", "core.quotePath=false", "diff"))
    )
    assert sorted(ours) == sorted(theirs)


def test_line_endings(flash_integrate: Run, checkout: Path) -> None:
    for name, data in ENDINGS.items():
        (checkout / f"{name}.py").write_bytes(data)
    diff = applied_as_it_would_be_written(flash_integrate, checkout, "git", "apply")
    assert all(name.encode() in diff for name in ENDINGS)


def test_the_help_s_example(flash_integrate: Run, checkout: Path) -> None:
    """`cd my_repo && flash-integrate . --dry-run | git apply`, also below the top of the
    checkout."""
    (checkout / "sub").mkdir()
    (checkout / "sub" / "run.py").write_text(SCRIPT)
    commit_all(checkout)
    for folder in (checkout, checkout / "sub"):
        subprocess.run(
            ["git", "apply"], input=dry_run(flash_integrate, folder), cwd=folder, check=True
        )
        assert "enable_flash_attention" in (checkout / "sub" / "run.py").read_text()
        git(checkout, "checkout", "-q", ".")
