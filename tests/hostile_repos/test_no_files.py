"""What lies under a familiar name and is no file, or larger than anybody would write: never a
wait, or all memory."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_run import SCRIPT, is_patched, run, started

LARGE = 2 << 40


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def own_device(path: Path) -> None:
    """A device that lies in the repo itself, as an archive unpacked by root can have it."""
    try:
        os.mknod(path, 0o020666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root can make a device")


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket may not be long
        try:
            bound.bind(path.name)
        finally:
            os.chdir(here)


def large(path: Path) -> None:
    """Two tebibytes that take no space."""
    path.touch()
    os.truncate(path, LARGE)


def folder(path: Path) -> None:
    path.mkdir()


KINDS = {
    pipe: "a pipe, not a file",
    device: "leads out of the repo by a link, to /dev/zero",
    own_device: "a device, not a file",
    listener: "a socket, not a file",
    large: "larger than",
    folder: "Is a directory",
}
each_kind = pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "run.py").write_text(SCRIPT)
    return tmp_path


@each_kind
def test_files_that_say_something_about_the_repo(repo: Path, make: Callable[[Path], None]) -> None:
    """The script is done, and each is named with what it is."""
    for name in (".gitignore", "requirements.txt", "setup.cfg", "setup.py", "pyproject.toml"):
        make(repo / "sub" / name)
    result = run(repo, "--add-dependency", "--json", repo / "report.json")
    assert result.returncode == 2
    assert is_patched(repo / "sub" / "run.py")
    report = (repo / "report.json").read_text()
    assert KINDS[make] in report
    assert "sub/.gitignore" in report
    for name in ("requirements.txt", "pyproject.toml"):
        assert f"sub/{name}: {KINDS[make]}" in result.stderr


@each_kind
def test_the_configuration(repo: Path, make: Callable[[Path], None]) -> None:
    """It might leave out files: a run without it would write to those."""
    make(repo / "pyproject.toml")
    result = run(repo)
    assert (result.returncode, KINDS[make] in result.stderr) == (2, True)
    assert not is_patched(repo / "sub" / "run.py")


@each_kind
def test_the_list_of_the_copy(repo: Path, make: Callable[[Path], None]) -> None:
    run(repo)
    (repo / "mlx_flash_runtime").mkdir()
    make(repo / "mlx_flash_runtime" / "VENDORED.json")
    result = run(repo, "--revert")
    assert (result.returncode, "VENDORED.json: " in result.stderr) == (2, True)
    assert (repo / "sub" / "run.py").read_text() == SCRIPT


@pytest.mark.parametrize(
    "make", [kind for kind in KINDS if kind is not folder], ids=lambda make: make.__name__
)
def test_scripts_named_on_the_command_line(repo: Path, make: Callable[[Path], None]) -> None:
    named = [repo / name for name in ("named.py", "named.ipynb", "named")]
    for path in named:
        make(path)
    result = run(*named, repo / "sub" / "run.py", "--dry-run")
    assert result.returncode == 2
    assert "3 failed" in result.stderr
    assert "enable_flash_attention" in result.stdout


@each_kind
def test_scripts_that_are_found(repo: Path, make: Callable[[Path], None]) -> None:
    for name in ("found.py", "found.ipynb"):
        make(repo / "sub" / name)
    result = run(repo)
    assert result.returncode == (2 if make is large else 0)
    assert is_patched(repo / "sub" / "run.py")
    assert run(repo, "--revert").returncode == result.returncode
    assert (repo / "sub" / "run.py").read_text() == SCRIPT


def test_standard_input_without_an_end() -> None:
    with open("/dev/zero") as zero:
        result = started("-", stdin=zero)
    assert (result.returncode, "<stdin>: larger than" in result.stderr) == (2, True)
