"""What gets in the way of a run: permissions, a full disk, files that change, signals, a second
run.

Each time the command says so in a line, keeps every byte of what it can't do, does the rest, and
leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from conftest import SCRIPT, Run

from flash_integrate.disk.writing import write
from flash_integrate.errors import FileError
from flash_integrate.planning.run import integrate

FLAT = "from mlx_lm import load\n\nload('tiny')\n"
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def obey_permissions() -> None:
    """Run in a child before its program starts: takes from root the privilege to read and write
    everything."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl")


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "flash_integrate", *map(str, args)]


def run(
    *args: object, prepare: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the command; `prepare` is called in the child before."""
    result = subprocess.run(command(*args), capture_output=True, text=True, preexec_fn=prepare)
    assert "Traceback" not in result.stderr
    return result


def is_patched(path: Path) -> bool:
    return b"enable_flash_attention" in path.read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A repo with a script and a folder `locked` with another one; its permissions are given back
    for the clean-up."""
    probe = tmp_path / "probe"
    probe.touch(mode=0o000)
    reads = [sys.executable, "-c", f"open({str(probe)!r})"]
    try:
        if subprocess.run(reads, capture_output=True, preexec_fn=obey_permissions).returncode == 0:
            pytest.skip("permissions mean nothing to this user")
    except subprocess.SubprocessError:
        pytest.skip("root may not give up its privileges here")
    probe.unlink()
    (tmp_path / "run.py").write_text(SCRIPT)
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "run.py").write_text(SCRIPT)
    yield tmp_path
    (tmp_path / "locked").chmod(0o700)


def test_a_read_only_file(locked: Path) -> None:
    (locked / "locked" / "run.py").chmod(0o444)
    result = run(locked, prepare=obey_permissions)
    assert result.returncode == 2
    assert "locked/run.py" in result.stderr
    assert "not writable" in result.stderr
    assert (locked / "locked" / "run.py").read_text() == SCRIPT
    assert is_patched(locked / "run.py")


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o555])
def test_a_folder_without_permission(locked: Path, mode: int) -> None:
    """Neither listed, nor entered, nor written to."""
    (locked / "locked").chmod(mode)
    result = run(locked, prepare=obey_permissions)
    assert result.returncode == 2
    assert "Permission denied" in result.stderr
    assert is_patched(locked / "run.py")
    (locked / "locked").chmod(0o700)
    assert names(locked / "locked") == ["run.py"]
    assert (locked / "locked" / "run.py").read_text() == SCRIPT


def test_a_file_larger_than_may_be_written(tmp_path: Path) -> None:
    large = SCRIPT + "# more\n" * 1000
    (tmp_path / "large.py").write_text(large)
    (tmp_path / "run.py").write_text(SCRIPT)
    result = run(tmp_path, prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)))
    assert result.returncode == 2
    assert "large.py" in result.stderr
    assert "File too large" in result.stderr
    assert (tmp_path / "large.py").read_text() == large
    assert is_patched(tmp_path / "run.py")
    assert names(tmp_path) == ["large.py", "run.py"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    (small_disk / "run.py").write_text(SCRIPT)
    try:
        with open(small_disk / "filler", "wb") as filler:
            while True:
                filler.write(bytes(4096))
                filler.flush()
    except OSError:
        pass
    result = run(small_disk)
    assert result.returncode == 2
    assert "No space left on device" in result.stderr
    assert (small_disk / "run.py").read_text() == SCRIPT
    assert names(small_disk) == ["filler", "run.py"]
    (small_disk / "filler").unlink()
    assert run(small_disk).returncode == 0
    assert is_patched(small_disk / "run.py")


def test_a_file_deleted_while_the_tree_is_read(tmp_path: Path) -> None:
    for name in ("one.py", "two.py", "three.py"):
        (tmp_path / name).write_text(FLAT)

    def progress(files: Iterable[object], stage: str) -> Iterator[object]:
        for number, file in enumerate(files):
            if stage == "reading" and number == 0:
                (tmp_path / "two.py").unlink()
            yield file

    outcomes = {outcome.name.name: outcome for outcome in integrate([tmp_path], (), progress)}  # type: ignore[arg-type]
    assert outcomes["two.py"].reason == "No such file or directory"
    for name in ("one.py", "three.py"):
        write(outcomes[name].path, tmp_path, outcomes[name].before, outcomes[name].after)
        assert is_patched(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda path: path.write_text(FLAT + "# new\n"),
            "changed on disk while the tool was reading it; run the tool again",
        ),
        (lambda path: path.unlink(), "No such file or directory"),
    ],
    ids=["changed", "deleted"],
)
def test_a_file_that_is_not_what_was_read(
    tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "run.py"
    path.write_text(FLAT)
    [outcome] = integrate([tmp_path], (), lambda files, stage: files)
    change(path)
    now = path.read_bytes() if path.exists() else None
    with pytest.raises(FileError) as error:
        write(path, outcome.base, outcome.before, outcome.after)
    assert str(error.value) == reason
    assert (path.read_bytes() if path.exists() else None) == now


def test_a_pipe_is_no_script(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "run.py").write_text(SCRIPT)
    assert run(tmp_path).returncode == 0
    assert is_patched(tmp_path / "run.py")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder of scripts that take a while to be written, so that a signal meets the run between
    two of them."""
    for number in range(300):
        (tmp_path / f"run_{number:03}.py").write_text(FLAT)
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_between_two_files(many: Path, number: signal.Signals) -> None:
    run_ends = started(many, "-j1")
    wait_until(lambda: is_patched(many / "run_000.py"), run_ends)
    # So that it does not get further while the signal is on its way.
    run_ends.send_signal(signal.SIGSTOP)
    run_ends.send_signal(number)
    run_ends.send_signal(signal.SIGCONT)
    _, stderr = run_ends.communicate()
    assert run_ends.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in stderr
    patched = (many / "run_000.py").read_text()
    texts = [(many / f"run_{number:03}.py").read_text() for number in range(300)]
    assert set(texts) == {FLAT, patched}
    if number == signal.SIGINT:
        first, *told = stderr.splitlines()
        assert first == "Interrupted:"
        assert set(told) == {
            f"{'written' if text == patched else 'not written'}: run_{number:03}.py"
            for number, text in enumerate(texts)
        }
        assert len(names(many)) == 300
    # Nothing that it left behind is in the way of the next one.
    assert run(many, "-j1").returncode == 0
    assert {(many / f"run_{number:03}.py").read_text() for number in range(300)} == {patched}


@pytest.mark.parametrize("later", [0, 0.05, 0.1, 0.2, 0.3])
def test_ctrl_c_while_several_processes_plan(many: Path, later: float) -> None:
    """A terminal sends it to all of them."""
    run_ends = started(many, "-j2", start_new_session=True)
    wait_until(lambda: len(children_of(run_ends.pid)) > 0, run_ends)
    time.sleep(later)
    os.killpg(run_ends.pid, signal.SIGINT)
    _, stderr = run_ends.communicate()
    assert run_ends.returncode == 130
    assert stderr == "Interrupted:\nnothing was written\n"
    assert len(names(many)) == 300


def test_a_planning_process_that_is_killed(many: Path) -> None:
    run_ends = started(many, "-j2")
    wait_until(lambda: len(children_of(run_ends.pid)) > 0, run_ends)
    os.kill(children_of(run_ends.pid)[0], signal.SIGKILL)
    _, stderr = run_ends.communicate()
    assert run_ends.returncode == 2
    assert (
        stderr == "error: a planning process was killed; nothing was written; -j 1 does without\n"
    )
    assert not any(is_patched(path) for path in many.iterdir())


def test_two_runs_at_once(many: Path, flash_integrate: Run) -> None:
    alone = many / "alone"
    alone.mkdir()
    (alone / "run.py").write_text(FLAT)
    flash_integrate(alone)
    runs = [started(many, "-j1") for _ in range(2)]
    for one in runs:
        _, stderr = one.communicate()
        assert "Traceback" not in stderr
        # The one that comes second finds files done, or changed since it read them.
        assert one.returncode == 0 or "changed on disk" in stderr
    assert {(many / f"run_{number:03}.py").read_text() for number in range(300)} == {
        (alone / "run.py").read_text()
    }
    assert len(names(many)) == 302


def started(*args: object, start_new_session: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*args),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=start_new_session,
    )


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not reached():
        assert process.poll() is None, "the run was over before the test could reach it"
        time.sleep(0.001)


def children_of(process: int) -> list[int]:
    """The processes that a process has started, on Linux."""
    tasks = Path(f"/proc/{process}/task")
    if not tasks.exists():
        pytest.skip("needs /proc")
    listed = (tasks / str(process) / "children").read_text()
    return [int(child) for child in listed.split()]
