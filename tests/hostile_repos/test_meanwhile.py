"""What others do to files while a run goes on, what a killed run leaves, and reports in the place
of sources."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_run import ENOUGH_SECONDS, SCRIPT, contents, is_patched, run, started

from flash_integrate.disk import writing
from flash_integrate.disk.reading import CHANGED
from flash_integrate.errors import FileError
from flash_integrate.planning.run import integrate


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    for name in ("one.py", "two.py", "three.py"):
        (tmp_path / name).write_text(SCRIPT)
    return tmp_path


def temporary_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(".flash-integrate-*"))


def put_off(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> None:
    """Something happens while the system writes a new file to disk, which on a busy one takes
    seconds."""
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        fsync(descriptor)
        meanwhile()

    monkeypatch.setattr(os, "fsync", slow)


def test_lines_appended_while_the_new_file_is_written_stay(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repo / "one.py"
    put_off(monkeypatch, lambda: path.open("a").write("# a line of the user's\n") and None)
    with pytest.raises(FileError, match=CHANGED):
        writing.write(path, repo, SCRIPT.encode(), b"patched\n")
    assert path.read_text() == SCRIPT + "# a line of the user's\n"
    assert temporary_files(repo) == []


def test_a_file_made_while_the_new_one_is_written_stays(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repo / "new.py"
    put_off(monkeypatch, lambda: path.write_text("the user's") and None)
    with pytest.raises(FileError, match="is there already"):
        writing.create(path, repo, b"ours\n")
    assert path.read_text() == "the user's"
    assert temporary_files(repo) == []


def test_a_folder_that_becomes_a_link_is_not_written_through(repo: Path) -> None:
    """Between the plan and the writing."""
    outside = repo.with_name(f"{repo.name}-outside")
    outside.mkdir()
    (outside / "run.py").write_text(SCRIPT)
    (repo / "sub").symlink_to(outside)
    writes: list[Callable[[], None]] = [
        lambda: writing.write(repo / "sub" / "run.py", repo, SCRIPT.encode(), b"patched\n"),
        lambda: writing.create(repo / "sub" / "new.py", repo, b"new\n"),
        lambda: writing.create(repo / "sub" / "deeper" / "new.py", repo, b"new\n"),
        lambda: writing.delete(repo / "sub" / "run.py", repo, SCRIPT.encode()),
        lambda: writing.delete_compiled(repo / "sub" / "run.py", repo),
        lambda: writing.delete_empty_folder(repo / "sub", repo),
    ]
    before = contents(outside)
    for write in writes:
        with pytest.raises(FileError, match="link"):
            write()
    assert contents(outside) == before


def test_a_script_that_vanishes_between_reading_and_planning_costs_itself(repo: Path) -> None:
    def progress(files: object, stage: str) -> object:
        if stage == "planning":
            (repo / "two.py").unlink()
        return files

    outcomes = {outcome.name.name: outcome for outcome in integrate([repo], (), progress, jobs=1)}  # type: ignore[arg-type]
    assert (outcomes["two.py"].status.value, outcomes["two.py"].reason) == (
        "failed",
        "No such file or directory",
    )
    assert outcomes["one.py"].changes
    assert outcomes["three.py"].changes


@pytest.mark.skipif(
    not os.access(sys.executable, os.X_OK), reason="pexpect asks whether this user may run Python"
)
def test_files_that_vanish_before_they_are_written_cost_themselves(repo: Path) -> None:
    """A run that asks waits for its user: there is time to take files away."""
    import pexpect

    (repo / "requirements.txt").write_text("mlx\n")
    command = ["-m", "flash_integrate", str(repo), "--interactive", "--add-dependency"]
    asking = pexpect.spawn(
        sys.executable, command, timeout=ENOUGH_SECONDS, encoding="utf-8", dimensions=(50, 200)
    )
    asking.expect(r"\? ")
    (repo / "three.py").unlink()
    (repo / "requirements.txt").unlink()
    asking.send("y\n" * 20)
    asking.expect(pexpect.EOF)
    said = asking.before
    asking.close()
    assert asking.exitstatus == 2
    assert "Traceback" not in said
    assert "No such file or directory" in said
    assert is_patched(repo / "one.py")
    assert is_patched(repo / "two.py")


def killed_while_writing(folder: Path) -> None:
    """Leaves what a run leaves that is killed while it writes a file: made by the tool's own code,
    in a process."""
    code = (
        "import os, signal, sys, pathlib\n"
        "from flash_integrate.disk import writing\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "writing.write(path, path.parent, path.read_bytes(), b'patched')\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(folder / "one.py")])
    assert killed.returncode == -signal.SIGKILL
    assert len(temporary_files(folder)) == 1


def test_what_a_killed_run_leaves_is_removed_by_the_next(repo: Path) -> None:
    killed_while_writing(repo)
    assert (repo / "one.py").read_text() == SCRIPT
    assert run(repo, "--dry-run").returncode == 0
    assert len(temporary_files(repo)) == 1  # a run that writes nothing also removes nothing
    assert run(repo).returncode == 0
    assert temporary_files(repo) == []


def test_only_ones_own_leftovers_are_removed(repo: Path) -> None:
    killed_while_writing(repo)
    [leftover] = temporary_files(repo)
    of_a_run_that_lives = leftover.with_name(".flash-integrate-" + "0" * 16 + ".tmp")
    link = leftover.with_name(".flash-integrate-" + "1" * 16 + ".tmp")
    folder = leftover.with_name(".flash-integrate-" + "2" * 16 + ".tmp")
    pipe = leftover.with_name(".flash-integrate-" + "3" * 16 + ".tmp")
    other = leftover.with_name(".flash-integrate-notes.tmp")
    link.symlink_to("one.py")
    folder.mkdir()
    os.mkfifo(pipe)
    other.touch()
    with open(of_a_run_that_lives, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run(repo).returncode == 0
    assert temporary_files(repo) == sorted([of_a_run_that_lives, link, folder, pipe, other])


def test_a_file_being_written_is_no_leftover(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_off(monkeypatch, lambda: writing.remove_leftovers([repo]))
    writing.write(repo / "one.py", repo, SCRIPT.encode(), b"patched\n")
    assert (repo / "one.py").read_text() == "patched\n"


def test_extended_attributes_stay(repo: Path) -> None:
    path = repo / "one.py"
    if not hasattr(os, "setxattr"):
        pytest.skip("Python has no function for them on this system")
    try:
        os.setxattr(path, "user.origin", b"a colleague")
    except OSError:
        pytest.skip("this file system has none")
    assert run(repo).returncode == 0
    assert is_patched(path)
    assert os.getxattr(path, "user.origin") == b"a colleague"


def test_a_long_name_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250 + ".py")
    path.write_text(SCRIPT)
    assert run(tmp_path).returncode == 0
    assert is_patched(path)


@pytest.mark.parametrize("option", ["--json", "--sarif", "--markdown"])
@pytest.mark.parametrize("mode", [[], ["--dry-run"], ["--revert"]])
def test_a_report_is_not_written_over_a_script(repo: Path, option: str, mode: list[str]) -> None:
    if option == "--json":
        names = ["one.py", "requirements.txt", "pyproject.toml", ".gitignore", "link.json"]
    else:
        names = ["one.py"]
    (repo / "link.json").symlink_to("one.py")
    before = contents(repo)
    for name in names:
        result = run(repo, option, repo / name, *mode)
        assert result.returncode == 2
        assert name in result.stderr
    assert contents(repo) == before


def test_a_report_is_not_written_over_a_script_under_another_name(repo: Path) -> None:
    (repo / "script").write_text(SCRIPT)
    os.link(repo / "one.py", repo / "report.json")
    before = contents(repo)
    assert "would be written over" in run(repo, "--json", repo / "report.json").stderr
    assert "would be written over" in run(repo / "script", "--json", repo / "script").stderr
    assert contents(repo) == before


def test_a_report_goes_to_a_pipe_and_over_an_older_report(repo: Path) -> None:
    (repo / "report.json").write_text("an older one")
    assert run(repo, "--dry-run", "--json", repo / "report.json").returncode == 0
    assert '"one.py"' in (repo / "report.json").read_text()
    assert '"one.py"' in started(repo, "--check", "--json", "/dev/stdout").stdout
