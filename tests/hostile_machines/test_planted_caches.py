"""Libraries, compiled kernels, links and answers that somebody else has put into the caches: not
used, not followed."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx
import pytest

import cuda_compiler
from mlx_flash_runtime.kernels.cpu import cache
from mlx_flash_runtime.kernels.cpu.build import build
from mlx_flash_runtime.kernels.cpu.toolchain import BuildError, Toolchain, short_hash
from mlx_flash_runtime.kernels.cuda.compiling import cache as cuda_cache
from mlx_flash_runtime.kernels.cuda.compiling.source import Array, Source

SOMEBODY = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
cpu_only = pytest.mark.skipif(
    mx.default_device().type != mx.DeviceType.cpu, reason="is about the kernel for the CPU"
)

# Says that it ran as soon as it is loaded, before Python finds out that it is no module.
PLANTED = """
#include <fcntl.h>
#include <stdlib.h>
__attribute__((constructor)) static void run(void) {
  open(getenv("RAN"), O_CREAT | O_WRONLY, 0600);
}
"""
# With no compiler to be found, any library of the folder would do.
ATTEND = """
import mlx.core as mx
from mlx_flash_runtime import enable_flash_attention
q = mx.random.normal((1, 4, 200, 64))
stock = mx.fast.scaled_dot_product_attention(q, q, q, scale=0.125)
enable_flash_attention()
assert mx.allclose(mx.fast.scaled_dot_product_attention(q, q, q, scale=0.125), stock, atol=1e-5)
print("right")
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MLX_FLASH_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A library that does harm."""
    compiler = next(
        filter(None, map(shutil.which, ("cc", "gcc", "clang", "c++", "g++", "clang++"))), None
    )
    if compiler is None:
        pytest.skip("needs a compiler")
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted.c").write_text(PLANTED)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "planted.c", "-o", "planted.so"], cwd=folder, check=True
    )
    return (folder / "planted.so").read_bytes()


@pytest.fixture
def library(planted: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same in the cache, where the kernel would be, and named as that would be; all is the
    user's own yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    path = cache.folder() / f"{'0' * 16}-{short_hash(planted)}.so"
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_bytes(planted)
    path.chmod(0o700)
    return path


def attend(**variables: str) -> list[str]:
    """Has a program of one call run, which is right; what it says on stderr, but for whether flash
    attention is on."""
    done = subprocess.run(
        [sys.executable, "-c", ATTEND],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
    return [line for line in done.stderr.splitlines() if not line.startswith("flash attention: on")]


def writable(path: Path) -> None:
    path.chmod(0o777)


def of_another_user(path: Path) -> None:
    os.chown(path, SOMEBODY, -1)


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


HARM = [writable, linked, pipe, pytest.param(of_another_user, marks=as_root)]


@cpu_only
def test_the_library_that_is_planted_here_would_run(library: Path, tmp_path: Path) -> None:
    attend(PATH="")
    assert (tmp_path / "ran").exists()


@cpu_only
@pytest.mark.parametrize("harm", [writable, pytest.param(of_another_user, marks=as_root)])
@pytest.mark.parametrize(
    "variables", [{"PATH": ""}, {"PATH": "", "MLX_FLASH_BUILD": "0"}], ids=["build", "no build"]
)
def test_a_folder_of_others_is_one_warning(
    variables: dict[str, str], harm: Callable[[Path], None], library: Path, tmp_path: Path
) -> None:
    harm(library.parent)
    (warning,) = attend(**variables)
    assert warning.startswith(
        "flash attention: no CPU kernel, so attention is slower: "
        f"the cache folder is not used ({tmp_path}"
    )
    assert warning.endswith("; XDG_CACHE_HOME names another")
    assert not (tmp_path / "ran").exists()


@cpu_only
@pytest.mark.parametrize("harm", HARM)
def test_a_library_of_others_is_one_warning(
    harm: Callable[[Path], None], library: Path, tmp_path: Path
) -> None:
    harm(library)
    (warning,) = attend(PATH="", MLX_FLASH_BUILD="0")
    assert warning.startswith(f"flash attention: a library in the cache is not used: {library}: ")
    assert not (tmp_path / "ran").exists()


@cpu_only
@pytest.mark.parametrize("harm", [writable, pytest.param(of_another_user, marks=as_root)])
def test_nothing_is_built_in_a_folder_of_others(
    harm: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing_compiler: None,
) -> None:
    (tmp_path / "cache").mkdir()
    harm(tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(BuildError, match=f"the cache folder is not used \\({tmp_path}/cache: "):
        build()
    assert not list((tmp_path / "cache").iterdir())


@pytest.fixture
def failing_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cxx"
    compiler.write_text("#!/bin/sh\necho 'sorry.h:1: error: no such header'; exit 1\n")
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@cpu_only
def test_links_are_not_written_through(failing_compiler: None, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    cache.folder().mkdir(parents=True, mode=0o700)
    note = cache.folder() / f"{Toolchain.find().identity}.failed"
    for name in ("build.log", note.name):
        (cache.folder() / name).symlink_to(victim)
    with pytest.raises(BuildError, match=r"failed: sorry\.h:1: error: no such header \(see "):
        build()
    assert "no such header" in note.read_text()
    note.unlink()
    (cache.folder() / "lock").unlink()
    (cache.folder() / "lock").symlink_to(victim)
    with pytest.raises(BuildError, match="lock: it is a link"):
        build()
    assert victim.read_text() == "precious"


@cpu_only
def test_what_a_build_makes_is_the_user_s_alone(failing_compiler: None, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with pytest.raises(BuildError):
            build()
    finally:
        os.umask(before)
    made = list((tmp_path / "cache").rglob("*"))
    assert {path.name for path in made if path.is_file()} >= {"lock", "build.log"}
    assert {path.stat().st_mode & 0o077 for path in [tmp_path / "cache", *made]} == {0}


@pytest.fixture
def ptx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where MLX keeps kernels, as in a /tmp that all share: the user's own yet."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("MLX_PTX_CACHE_DIR", raising=False)
    tmp_path.chmod(0o1777)
    cuda_cache.folder().mkdir(parents=True)
    cuda_cache.why_not.cache_clear()
    yield cuda_cache.folder()
    cuda_cache.why_not.cache_clear()


@pytest.mark.parametrize("level", [0, 1, 2], ids=["ptx", "version", "mlx"])
@pytest.mark.parametrize("harm", [writable, pytest.param(of_another_user, marks=as_root)])
def test_a_folder_for_compiled_kernels_of_others_is_one_warning(
    harm: Callable[[Path], None], level: int, ptx: Path, caplog: pytest.LogCaptureFixture
) -> None:
    harmed = [ptx, *ptx.parents][level]
    harm(harmed)
    with caplog.at_level(logging.WARNING):
        reasons = {cuda_cache.why_not((9, 0)) for _ in range(2)}
    (reason,) = reasons
    assert reason.startswith(f"MLX's folder for kernels is not used ({harmed}: ")
    (record,) = caplog.records
    assert reason in record.getMessage()
    assert not list(ptx.iterdir())


@pytest.fixture(scope="module")
def compiler() -> None:
    cuda_compiler.load()


def kernel() -> Source:
    """A small kernel."""
    like, out = Array("like", "float"), Array("out", "float")
    return Source("flash_test", (9, 0), (like,), (out,), "  out[0] = like[0];")


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("ending", ["ptx", "txt"])
def test_a_compiled_kernel_of_others_is_made_anew(
    ending: str, harm: Callable[[Path], None], ptx: Path, compiler: None
) -> None:
    source = kernel()
    cuda_cache.put(source)
    good = {path.name: path.read_bytes() for path in ptx.iterdir()}
    one = ptx / f"{cuda_cache.modules(source)[0]}.{ending}"
    one.write_bytes(b"harm")
    harm(one)
    cuda_cache.put(source)
    (ptx / "elsewhere").unlink(missing_ok=True)
    assert {path.name: path.read_bytes() for path in ptx.iterdir()} == good
    assert not one.is_symlink()
    assert (one.stat().st_uid, one.stat().st_mode & 0o777) == (os.geteuid(), 0o644)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00", b"harm\x1b]0;title\x07", b"x" * 10**6],
    ids=["bytes", "text", "long"],
)
def test_an_answer_that_is_none_is_asked_for_again(
    content: bytes, ptx: Path, compiler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_cache, "_is_taken", lambda probe: True)  # which needs a GPU
    assert cuda_cache.why_not((9, 0)) == ""
    (answer,) = ptx.glob("*.answer")
    answer.write_bytes(content)
    cuda_cache.why_not.cache_clear()
    assert cuda_cache.why_not((9, 0)) == ""
    assert answer.read_bytes() == b""


def test_folders_for_compiled_kernels_are_left_open_to_mlx_in_other_programs(
    ptx: Path, compiler: None, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "mlx")
    before = os.umask(0)
    try:
        cuda_cache.put(kernel())
    finally:
        os.umask(before)
    made = [path.stat().st_mode & 0o777 for path in (tmp_path / "mlx").rglob("*") if path.is_dir()]
    assert made == [0o755, 0o755]
