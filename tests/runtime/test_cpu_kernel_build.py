"""The CPU kernel's build on first use: once, in the background, and never in a script's way."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from backends import cpu_only

from mlx_flash_runtime.kernels.cpu import toolchain

# In one worker, where the kernel is built once.
pytestmark = [cpu_only, pytest.mark.xdist_group("cpu-kernel-build")]

BUILD = "from mlx_flash_runtime.kernels.cpu.build import build; print(build())"
# Says which routes two calls took and whether they were right; waits for a build in the background
# if told to.
SCRIPT = """
import sys, time
import mlx.core as mx
from mlx_flash_runtime import enable_flash_attention, report
from mlx_flash_runtime.kernels.cpu import library

enable_flash_attention()
q = mx.random.normal((1, 4, 200, 64))
def attend():
    return mx.fast.scaled_dot_product_attention(q, q, q, scale=0.125)
first = attend()
mx.eval(first)
while sys.argv[1:] == ["wait"] and library.status().state == "building":
    time.sleep(0.05)
assert mx.allclose(attend(), first, atol=1e-5)
print(*report().as_dict()["routes"], library.status().state)
"""
BUILDING = "flash attention: the CPU kernel is being built in the background"
BUILT = "flash attention: the CPU kernel was built in the background"
NONE = "flash attention: no CPU kernel, so attention is slower: "


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiler that is in a hurry, keeps a log of its runs and what it has compiled beside it,
    and waits while there is a file `cxx.held`."""
    real = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    script = tmp_path_factory.mktemp("compiler") / "cxx"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {script}.log\n'
        f"while [ -e {script}.held ]; do sleep 0.1; done\n"
        f'case "$*" in *" -c "*) ;; *) exec {real} "$@" -O0 ;; esac\n'
        "for target; do :; done\n"
        f'kept={script}.$(basename "$target")\n'
        f'[ -e "$kept" ] && exec cp "$kept" "$target"\n'
        f'{real} "$@" -O0 && cp "$target" "$kept"\n'
    )
    script.chmod(0o755)
    return script


def environment(cache: Path, **variables: str) -> dict[str, str]:
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MLX_FLASH_") and name != "CXX"
    }
    return {**own, "XDG_CACHE_HOME": str(cache), **variables}


def python(
    code: str, *arguments: str, cache: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(cache, **variables),
        capture_output=True,
        text=True,
    )


class Raced(NamedTuple):
    """What came of processes that wanted the kernel at once: the cache, what those printed that
    wait for it, and what one did that came while it was being built."""

    cache: Path
    printed: list[str]
    other: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def raced(compiler: Path, tmp_path_factory: pytest.TempPathFactory) -> Raced:
    cache = tmp_path_factory.mktemp("cache")
    held, log = Path(f"{compiler}.held"), Path(f"{compiler}.log")
    held.touch()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", *code],
            env=environment(cache, CXX=str(compiler), MLX_RANK=str(rank)),
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, code in enumerate([(SCRIPT, "wait"), (BUILD,), (BUILD,)])
    ]
    try:
        while not log.exists():
            assert all(process.poll() is None for process in processes)
            time.sleep(0.05)
        other = python(SCRIPT, cache=cache, CXX=str(compiler), MLX_RANK="3")
    finally:
        held.unlink()
    printed = [process.communicate()[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    return Raced(cache, printed, other)


@pytest.fixture(scope="module")
def built(raced: Raced) -> Path:
    """A cache with the kernel."""
    return raced.cache


def test_of_several_processes_one_builds_it_and_the_others_go_on(
    raced: Raced, compiler: Path
) -> None:
    script, *libraries = raced.printed
    assert script.split() == ["unfused", "cpu_kernel", "ready"]
    assert libraries[0] == libraries[1]
    runs = Path(f"{compiler}.log").read_text().splitlines()
    assert len(runs) == len(list(toolchain.SOURCES.glob("*.cpp"))) + 2  # nanobind and the link
    folder = Path(libraries[0]).parent
    # The other file is the lock.
    assert sorted(path.suffix for path in folder.iterdir()) == ["", ".so"]
    assert raced.other.returncode == 0, raced.other.stderr
    assert raced.other.stdout.split() == ["unfused", "building"]


def copy_of(cache: Path, folder: Path) -> tuple[Path, Path]:
    """A cache of one's own, and its library."""
    shutil.copytree(cache, folder / "cache")
    (library,) = (folder / "cache").rglob("*.so")
    return folder / "cache", library


def test_a_later_process_says_nothing_and_uses_it(built: Path, compiler: Path) -> None:
    done = python(SCRIPT, cache=built, CXX=str(compiler))
    assert done.stdout.split() == ["cpu_kernel", "ready"]
    assert len(done.stderr.splitlines()) == 1  # that flash attention is on


def test_once_built_no_compiler_is_needed(built: Path) -> None:
    done = python(SCRIPT, cache=built, PATH="")
    assert done.stdout.split() == ["cpu_kernel", "ready"]


def test_it_takes_over_when_it_is_built_and_a_damaged_library_is_built_again(
    built: Path, compiler: Path, tmp_path: Path
) -> None:
    cache, library = copy_of(built, tmp_path)
    os.truncate(library, library.stat().st_size // 2)
    done = python(SCRIPT, "wait", cache=cache, CXX=str(compiler))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["unfused", "cpu_kernel", "ready"]
    on, at_exit = done.stderr.splitlines()
    assert on.startswith("flash attention: on")
    assert at_exit.startswith(BUILT)
    assert not library.exists() or library.stat().st_size > 100_000


def test_without_a_compiler_one_warning_says_what_to_install(tmp_path: Path) -> None:
    done = python(SCRIPT, cache=tmp_path, PATH="")
    assert (done.returncode, done.stdout.split()) == (0, ["unfused", "impossible"])
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith(NONE)]
    assert "no C++ compiler: " in warning


def test_a_failing_build_is_tried_once_and_named_each_time(tmp_path: Path) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text(
        f"#!/bin/sh\necho run >> {compiler}.log\n"
        "echo 'sorry.h:1: error: no such header' >&2\nexit 1\n"
    )
    compiler.chmod(0o755)
    first = python(SCRIPT, "wait", cache=tmp_path, CXX=str(compiler))
    runs = Path(f"{compiler}.log").read_text()
    second = python(SCRIPT, "wait", cache=tmp_path, CXX=str(compiler))
    assert Path(f"{compiler}.log").read_text() == runs
    for done in (first, second):
        assert (done.returncode, done.stdout.split()) == (0, ["unfused", "impossible"])
        (warning,) = [line for line in done.stderr.splitlines() if line.startswith(NONE)]
        assert "failed: sorry.h:1: error: no such header (see " in warning
        log = Path(warning.partition("(see ")[2].rstrip(")"))
        assert "no such header" in log.read_text()
    assert BUILDING not in second.stderr


def test_a_cache_that_cannot_be_written(tmp_path: Path, compiler: Path) -> None:
    (tmp_path / "file").touch()
    done = python(SCRIPT, "wait", cache=tmp_path / "file", CXX=str(compiler))
    assert (done.returncode, done.stdout.split()) == (0, ["unfused", "impossible"])
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith(NONE)]
    assert "the cache folder cannot be written" in warning


def test_another_nanobind_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "nanobind" / "src"
    source.mkdir(parents=True)
    (source.parent / "__init__.py").touch()
    (source / "nb_abi.h").write_text("#  define NB_INTERNALS_VERSION 15\n")
    done = python(SCRIPT, cache=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.stdout.split() == ["unfused", "impossible"]
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith(NONE)]
    assert re.search(
        r"the installed nanobind does not fit MLX [\d.]+: pip install 'nanobind==", warning
    )


@pytest.mark.parametrize(
    ("code", "variables"),
    [
        (SCRIPT, {"MLX_FLASH_BUILD": "off"}),
        (SCRIPT.replace("200", "8"), {}),
        (SCRIPT, {"MLX_FLASH_ROUTE": "blockwise"}),
    ],
    ids=["forbidden", "toy sizes", "another route"],
)
def test_nothing_is_built_where_nobody_wants_it(
    code: str, variables: dict[str, str], tmp_path: Path
) -> None:
    done = python(code, cache=tmp_path, **variables)
    assert done.stdout.split()[-2:] == ["not", "built"]
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Path]:
    """A compiler that does not end before the test does."""
    (tmp_path / "held").touch()
    script = tmp_path / "slow"
    script.write_text(f"#!/bin/sh\nwhile [ -e {tmp_path}/held ]; do sleep 0.1; done; exit 1\n")
    script.chmod(0o755)
    yield script
    (tmp_path / "held").unlink()


def test_a_child_of_a_script_that_is_building_goes_on_without(tmp_path: Path, slow: Path) -> None:
    fork = "import os\npid = os.fork()\nif pid: sys.exit(os.waitpid(pid, 0)[1])\n"
    done = python(SCRIPT.replace("mx.eval(first)\n", fork), cache=tmp_path / "cache", CXX=str(slow))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["unfused", "building"]


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        (
            {"MLX_FLASH_BUILD": "0"},
            "the CPU kernel is not built, so attention is slower: "
            "mlx-flash doctor --build compiles it",
        ),
        ({"CXX": "SLOW"}, "the CPU kernel is being built in the background: the next run has it"),
        (
            {"CXX": "/nowhere/c++"},
            "no CPU kernel, so attention is slower: CXX names /nowhere/c++, which is not there; "
            "mlx-flash doctor --build tries again",
        ),
        ({"MLX_FLASH_ROUTE": "blockwise"}, None),
        ({"MLX_FLASH_DISABLE": "1"}, None),
    ],
    ids=["not built", "building", "impossible", "another route", "off"],
)
def test_the_report_ends_with_the_way_to_the_kernel(
    variables: dict[str, str], advice: str | None, tmp_path: Path, slow: Path
) -> None:
    variables = {name: value.replace("SLOW", str(slow)) for name, value in variables.items()}
    done = python(SCRIPT, cache=tmp_path / "cache", MLX_FLASH_REPORT="1", **variables)
    last = done.stderr.splitlines()[-1]
    assert last == advice if advice else "kernel" not in last


def test_where_the_kernel_runs_the_report_has_no_advice(built: Path, compiler: Path) -> None:
    done = python(SCRIPT, cache=built, CXX=str(compiler), MLX_FLASH_REPORT="1")
    assert (
        done.stderr.splitlines()[-1]
        == "    cpu_kernel 2: our own kernel for this CPU, where MLX has none"
    )


def is_running(process: str) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", process], capture_output=True, text=True, check=False
    ).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_ctrl_c_ends_a_build_and_its_compilers(tmp_path: Path) -> None:
    slow, log = tmp_path / "slow", tmp_path / "log"
    slow.write_text(f"#!/bin/sh\nsleep 600 & echo $! >> {log}\nwait\n")
    slow.chmod(0o755)
    command = [sys.executable, "-m", "mlx_flash_runtime.tools.cli", "doctor", "--build"]
    doctor = subprocess.Popen(
        command,
        env=environment(tmp_path, CXX=str(slow)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    jobs = min(os.cpu_count() or 1, len(toolchain.Toolchain.find().sources()))
    while not log.exists() or len(log.read_text().split()) < jobs:
        assert doctor.poll() is None
        time.sleep(0.05)
    doctor.send_signal(signal.SIGINT)
    out, err = doctor.communicate(timeout=60)  # the compilers themselves take ten minutes
    assert (doctor.returncode, out, err.splitlines()[-1]) == (130, "", "stopped")
    compilers = log.read_text().split()
    assert len(compilers) == jobs  # no other one was started
    while any(map(is_running, compilers)):  # they have been told to end
        time.sleep(0.05)
    assert not list(tmp_path.rglob("build-*"))
    assert not list(tmp_path.rglob("*.failed"))


def test_doctor_builds_ahead(built: Path, compiler: Path, tmp_path: Path) -> None:
    doctor = (
        "import sys; sys.argv[1:] = ['doctor', '--build']; "
        "from mlx_flash_runtime.tools.cli import main; main()"
    )
    done = python(doctor, cache=built, CXX=str(compiler))
    assert done.returncode == 0, done.stderr
    assert str(built) in next(line for line in done.stdout.splitlines() if "cpu kernel" in line)
    failed = python(doctor, cache=tmp_path, CXX="/nowhere/c++")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.splitlines() == [
        "building the CPU kernel, once for this MLX: some 20 s of processor time ...",
        "error: the CPU kernel was not built: CXX names /nowhere/c++, which is not there",
    ]
