"""Compiles the kernel into the cache."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

from . import cache
from .toolchain import MODULE, BuildError, Toolchain

Progress = Callable[[int, int, str], None]

# Run in a process of its own, so that a library that crashes takes nothing with it.
_CHECK = """
import sys
sys.path[:] = sys.argv[2:]
import mlx.core as mx
mx.set_default_device(mx.cpu)
from mlx_flash_runtime.kernels.cpu.library import load
attention = load(sys.argv[1]).attention
q, k, v = (mx.random.normal((1, 2, 37, 24), key=key) for key in mx.random.split(mx.random.key(0), 3))
ours = lambda q, k, v: attention(q, k, v, 0.2, None, None, None, None)
stock = lambda q, k, v: mx.fast.scaled_dot_product_attention(q, k, v, scale=0.2)
answers = [[*a, *g] for a, g in (mx.vjp(f, [q, k, v], [mx.cos(q)]) for f in (ours, stock))]
assert all(mx.allclose(x, y, rtol=1e-3, atol=1e-4) for x, y in zip(*answers)), "its answers are wrong"
"""
_SECONDS = 600  # for one step, on a slow machine


def build(progress: Progress | None = None) -> Path:
    """The library in the cache, compiled if it is not there yet, which takes some 20 seconds of processor time.

    `progress` is told how many steps are done, of how many, and which one was done last. Another process that builds
    the same is waited for. Raises BuildError if there can be no library; the compiler's words are then in a file beside
    where it would be.
    """
    tools = Toolchain.find()
    found = cache.find(tools)
    if found:
        return found
    with cache.lock():
        found = cache.find(tools)  # by another process, meanwhile
        if found:
            return found
        for left_over in cache.folder().glob("build-*"):  # by a process that was killed
            shutil.rmtree(left_over, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=cache.folder(), prefix="build-") as folder:
            try:
                library = _compile(tools, Path(folder), progress or (lambda done, total, what: None))
            except BuildError as error:
                cache.failure(tools).write_text(f"{error}\n", encoding="utf-8")
                raise
            return cache.publish(library, tools)


def _compile(tools: Toolchain, folder: Path, progress: Progress) -> Path:
    sources = tools.sources()
    objects = [folder / f"{source.stem}.o" for source in sources]
    steps = len(sources) + 2
    with ThreadPoolExecutor(os.cpu_count()) as pool, _Commands() as commands:
        jobs = {
            pool.submit(commands.run, tools.compilation(source, target), f"compiling {source.name}"): source.name
            for source, target in zip(sources, objects, strict=True)
        }
        for done, job in enumerate(as_completed(jobs), start=1):
            job.result()
            progress(done, steps, jobs[job])
        library = folder / f"{MODULE}.so"
        commands.run(tools.linking(objects, library), "linking")
        progress(steps - 1, steps, "linking")
        commands.run([sys.executable, "-I", "-c", _CHECK, str(library), *sys.path], "trying the library")
        progress(steps, steps, "a first run")
    return library


class _Commands:
    """Commands that threads run; when the `with` block ends by an exception, as by Ctrl-C, so do they, and no other one
    starts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._over = False

    def __enter__(self) -> _Commands:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        with self._lock:
            self._over = True
            for process in self._running:
                _kill(process)

    def run(self, command: list[str], what: str) -> None:
        """Raises BuildError unless the command succeeds."""
        try:
            process = self._started(command, what)
            try:
                output, _ = process.communicate(timeout=_SECONDS)
            except BaseException:  # too long, or Ctrl-C
                _kill(process)
                raise
            finally:
                with self._lock:
                    self._running.discard(process)
            code = process.returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            output, code = str(error), 1
        if code and not self._over:
            raise _failed(command, what, output, code)

    def _started(self, command: list[str], what: str) -> subprocess.Popen[str]:
        with self._lock:
            if self._over:
                raise BuildError(f"{what} was stopped")
            # In a session of its own: a compiler's parts end with it.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._running.add(process)
        return process


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _failed(command: list[str], what: str, output: str, code: int) -> BuildError:
    log = cache.folder() / "build.log"
    log.write_text(f"{' '.join(command)}\n{output}", encoding="utf-8")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else f"exit status {code}")
    return BuildError(f"{what} failed: {telling[:200]}", log)
