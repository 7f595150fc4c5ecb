"""The CPU kernel's arithmetic against its float64 definition, compiled here as plain C++, with
sanitizers too."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

import mlx_flash_runtime

KERNEL = Path(mlx_flash_runtime.__file__).parent / "kernels" / "cpu"
TESTS = Path(__file__).parent / "cpu_kernel"
# What each of the test programs needs of the kernel beside its headers.
SOURCES = {
    "check": ("pool.cpp", "forward.cpp", "backward.cpp"),
    "check_numbers": (),
    "check_pool": ("pool.cpp",),
}
COMPILER = next(
    filter(
        None, (shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++"))
    ),
    None,
)
NATIVE = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")


def build(folder: Path, program: str, *flags: str) -> Path:
    """Compiles one of the test programs with what it needs of the kernel; returns where it is."""
    binary = folder / program
    command = [
        str(COMPILER),
        "-std=c++20",
        "-Wall",
        "-Wextra",
        "-Wno-psabi",
        "-Wno-missing-field-initializers",
    ]
    command += [
        "-Werror",
        *flags,
        f"-I{KERNEL}",
        str(TESTS / f"{program}.cpp"),
        *(str(KERNEL / name) for name in SOURCES[program]),
    ]
    done = subprocess.run([*command, "-o", str(binary), "-pthread"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return binary


def sanitized(folder: Path, program: str, kind: str) -> Path:
    """As `build`, with a sanitizer; skips where the compiler has none."""
    trivial = folder / "trivial.cpp"
    trivial.write_text("int main() { return 0; }\n")
    flags = ["-O1", "-g1", f"-fsanitize={kind}", "-fno-sanitize-recover=all"]
    probe = [str(COMPILER), *flags, str(trivial), "-o", str(folder / "trivial")]
    if (
        subprocess.run(probe, capture_output=True).returncode
        or subprocess.run([folder / "trivial"]).returncode
    ):
        pytest.skip(f"{COMPILER} has no -fsanitize={kind}")
    return build(folder, program, NATIVE, *flags)


def run(binary: Path, *arguments: str) -> None:
    # GCC misaligns wide vectors on the stack where it checks for uses after a return (bug 110027).
    environment = {**os.environ, "ASAN_OPTIONS": "detect_stack_use_after_return=0"}
    done = subprocess.run(
        [binary, *arguments], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failures" in done.stdout


def test_every_case_is_within_the_error_of_float32(tmp_path: Path) -> None:
    run(build(tmp_path, "check", "-O3", NATIVE))


def test_numbers(tmp_path: Path) -> None:
    run(build(tmp_path, "check_numbers", "-O3", NATIVE))


@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the vectors of arm64 are always as wide"
)
@pytest.mark.parametrize("machine", ["x86-64", "x86-64-v3"])
def test_narrower_vectors(tmp_path: Path, machine: str) -> None:
    if machine == "x86-64-v3" and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this machine has no AVX2")
    run(build(tmp_path, "check", "-O1", f"-march={machine}"), "in float16")


def test_pool(tmp_path: Path) -> None:
    run(build(tmp_path, "check_pool", "-O2", NATIVE))


def test_no_memory_error_and_no_undefined_behaviour(tmp_path: Path) -> None:
    run(
        sanitized(tmp_path, "check", "address,undefined"),
        "in float32",
        "ragged in",
        "decode several in",
    )


def test_no_race_in_the_arithmetic(tmp_path: Path) -> None:
    run(
        sanitized(tmp_path, "check", "thread"),
        "groups in",
        "decode several in",
        "sinks and window in bfloat16",
    )


def test_no_race_in_the_pool(tmp_path: Path) -> None:
    run(sanitized(tmp_path, "check_pool", "thread"), "without fork")
