"""Compilers, processes and threads that fail, print without end, or are killed: a warning at most,
and nothing left."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_flash_runtime.environment import commands
from mlx_flash_runtime.kernels.cpu import cache
from mlx_flash_runtime.kernels.cpu.build import build
from mlx_flash_runtime.kernels.cpu.toolchain import BuildError, Toolchain
from mlx_flash_runtime.tools.doctor import surroundings

pytestmark = pytest.mark.skipif(
    mx.default_device().type != mx.DeviceType.cpu, reason="is about the kernel for the CPU"
)

# After a look into the cache something of the machine is used up; the call that would have the
# kernel built is right.
ATTEND = """
import os, resource, sys, threading
import mlx.core as mx
from mlx_flash_runtime import enable_flash_attention
from mlx_flash_runtime.kernels.cpu import library
q = mx.random.normal((1, 4, 200, 64))
stock = mx.fast.scaled_dot_product_attention(q, q, q, scale=0.125)
mx.eval(stock)
enable_flash_attention()
library.status()
{used_up}
assert mx.allclose(mx.fast.scaled_dot_product_attention(q, q, q, scale=0.125), stock, atol=1e-5)
print(library.status().state)
"""
NO_PROCESS = """
if os.geteuid() == 0:  # for whom there is no such limit
    os.setuid(12345)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
"""
NO_THREAD = "threading.stack_size(2**46)"
NO_FILE = """
free = os.dup(0)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))
os.close(free)
"""
BUILD = """
import resource, sys
from mlx_flash_runtime.kernels.cpu.build import build
from mlx_flash_runtime.kernels.cpu.toolchain import BuildError, Toolchain
Toolchain.find().identity
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    build()
except BuildError as error:
    print(error)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("MLX_FLASH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a shell script the compiler."""

    def make(script: str) -> None:
        path = tmp_path / "cxx"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        monkeypatch.setenv("CXX", str(path))

    return make


def attend(used_up: str = "") -> tuple[str, list[str]]:
    """The state of the kernel after a call, which is right, and the warnings about that."""
    code = ATTEND.format(used_up=used_up)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    start = "flash attention: no CPU kernel, so attention is slower: "
    return done.stdout.strip(), [
        line for line in done.stderr.splitlines() if line.startswith(start)
    ]


@pytest.mark.parametrize(
    ("used_up", "reason"),
    [
        (NO_PROCESS, "Resource temporarily unavailable"),
        (NO_THREAD, "can't start new thread"),
        (NO_FILE, "Too many open files"),
    ],
    ids=["process", "thread", "file"],
)
def test_where_nothing_can_be_started_the_call_is_right(
    used_up: str, reason: str, compiler: Callable[[str], None]
) -> None:
    compiler("exit 1")
    state, (warning,) = attend(used_up)
    assert state == "impossible"
    assert reason in warning


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("'g++", "CXX is no command: 'g++ (No closing quotation)"),
        ("g++ \\", "CXX is no command: g++ \\ (No escaped character)"),
        ("/nowhere/\udcff", "CXX names /nowhere/\\udcff, which is not there"),
        ("/", "CXX names /, which is not there"),
    ],
    ids=["quote", "escape", "bytes", "folder"],
)
def test_a_compiler_that_is_none(
    command: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", command)
    state, warnings = attend()
    assert state == "impossible"
    assert warnings == [f"flash attention: no CPU kernel, so attention is slower: {reason}"]


def test_a_compiler_that_is_no_program_is_tried_again(
    compiler: Callable[[str], None], tmp_path: Path
) -> None:
    compiler("")
    (tmp_path / "cxx").write_bytes(b"\x7fELF\x00\xff")
    with pytest.raises(BuildError, match="Exec format error"):
        build()
    assert not list((tmp_path / "cache").rglob("*.failed"))


def test_no_thread_for_a_build(compiler: Callable[[str], None], tmp_path: Path) -> None:
    compiler("exit 1")
    before = threading.stack_size(2**46)
    try:
        with pytest.raises(BuildError, match="can't start new thread"):
            build()
    finally:
        threading.stack_size(before)
    assert not list((tmp_path / "cache").rglob("build-*"))


def test_no_space_for_a_build(compiler: Callable[[str], None], tmp_path: Path) -> None:
    compiler("echo words; exit 1")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(BuildError, match=r"failed: words$"):
            build()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [path.name for path in cache.folder().iterdir()] == ["lock"]


@pytest.mark.parametrize(
    "note", [b"\xff\xfe\x00\n", b"", b"x" * 10**7, None], ids=["bytes", "empty", "long", "folder"]
)
def test_a_note_of_a_failure_that_is_none(
    note: bytes | None, compiler: Callable[[str], None]
) -> None:
    compiler("echo words; exit 1")
    tools = Toolchain.find()
    with pytest.raises(BuildError):
        build()
    (path,) = cache.folder().glob("*.failed")
    assert "failed: words (see " in cache.failure(tools)
    path.unlink()
    if note is None:
        path.mkdir()
    else:
        path.write_bytes(note)
    assert len(cache.failure(tools)) < 2**16
    with pytest.raises(BuildError, match="failed: words"):
        build()


def test_of_a_compiler_that_prints_much_the_beginning_and_the_end_are_kept(
    compiler: Callable[[str], None], tmp_path: Path
) -> None:
    compiler(
        "echo first.h:1: error: the first; yes 'error: again' | head -c 100000000; "
        "echo; echo the last; exit 1"
    )
    done = subprocess.run(
        [sys.executable, "-c", BUILD], capture_output=True, text=True, timeout=300, check=True
    )
    message, grown = done.stdout.splitlines()
    assert "failed: first.h:1: error: the first (see " in message
    assert int(grown) < 50_000_000
    (log,) = (tmp_path / "cache").rglob("build.log")
    assert log.stat().st_size < 500_000
    lines = log.read_text().splitlines()
    assert (lines[1], lines[-1]) == ("first.h:1: error: the first", "the last")
    assert any(line.endswith("bytes are left out ...") for line in lines)


def test_what_is_printed_is_kept_whole_up_to_a_size() -> None:
    for size in (0, 1, 2**16, 2**17):
        process = commands.start(["head", "-c", str(size), "/dev/zero"])
        assert commands.finish(process, 60) == "\0" * size


def test_a_command_that_does_not_end_is_ended_with_what_it_started(tmp_path: Path) -> None:
    process = commands.start(["/bin/sh", "-c", f"sleep 600 & echo $! > {tmp_path}/pid; yes"])
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    with pytest.raises(subprocess.TimeoutExpired):
        commands.finish(process, 1)
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: not is_running((tmp_path / "pid").read_text().strip()))


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("printf '\\377 1.0'", "ok"),
        ("yes | head -c 50000000", "ok"),
        (None, "warning"),
        ("exit 1", "missing"),
    ],
    ids=["bytes", "much", "no program", "fails"],
)
def test_doctor_asks_a_compiler_that_fails(
    script: str | None, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "g++"
    path.write_bytes(b"\x7fELF" if script is None else f"#!/bin/sh\n{script}\n".encode())
    path.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert surroundings.compiler().status == status


def is_running(process: str) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", process], capture_output=True, text=True, check=False
    ).stdout
    return bool(state.strip()) and not state.startswith("Z")


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(
    "command",
    [["-m", "mlx_flash_runtime.tools.cli", "doctor", "--build"], ["-c", BUILD]],
    ids=["doctor", "build"],
)
def test_a_signal_ends_a_build_and_its_compilers(
    command: list[str], number: signal.Signals, compiler: Callable[[str], None], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    compiler(f"sleep 600 & echo $! >> {log}\nwait")
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    jobs = min(os.cpu_count() or 1, len(Toolchain.find().sources()))
    wait_until(lambda: log.exists() and len(log.read_text().split()) == jobs)
    assert any((tmp_path / "cache").rglob("build-*"))
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)  # the compilers themselves take ten minutes
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    compilers = log.read_text().split()
    assert len(compilers) == jobs  # no other one was started
    wait_until(lambda: not any(map(is_running, compilers)))
    assert not list((tmp_path / "cache").rglob("build-*"))
    assert not list((tmp_path / "cache").rglob("*.failed"))


def test_a_program_s_own_handling_of_signals_stays(compiler: Callable[[str], None]) -> None:
    compiler("kill -TERM $PPID; echo words; exit 1")
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with pytest.raises(BuildError, match="failed: words"):
            build()
        assert seen
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_a_killed_build_left_is_taken_away_by_the_next(
    compiler: Callable[[str], None],
) -> None:
    compiler("exit 1")
    (cache.folder() / "build-killed" / "part").mkdir(parents=True, mode=0o700)
    (cache.folder() / ".flash-killed").touch()
    with pytest.raises(BuildError):
        build()
    assert sorted(path.suffix or path.name for path in cache.folder().iterdir()) == [
        ".failed",
        ".log",
        "lock",
    ]
