"""Compiles the kernel into the cache."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ...environment import commands
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
keys = mx.random.split(mx.random.key(0), 3)
inputs = [mx.random.normal((1, 2, 37, 24), key=key) for key in keys]
ours = lambda q, k, v: attention(q, k, v, 0.2, None, None, None, None)
stock = lambda q, k, v: mx.fast.scaled_dot_product_attention(q, k, v, scale=0.2)
answer, gradients = mx.vjp(ours, inputs, [mx.cos(inputs[0])])
right, right_gradients = mx.vjp(stock, inputs, [mx.cos(inputs[0])])
for x, y in zip([*answer, *gradients], [*right, *right_gradients]):
    assert mx.allclose(x, y, rtol=1e-3, atol=1e-4), "its answers are wrong"
"""
_SECONDS = 600  # for one step, on a slow machine


def build(progress: Progress | None = None) -> Path:
    """The library in the cache, compiled if it is not there yet, which takes some 20 seconds of
    processor time.

    `progress` is told how many steps are done, of how many, and which one was done last. Another
    process that builds the same is waited for. Raises BuildError if there can be no library; the
    compiler's words are then in a file beside where it would be.
    """
    try:
        with _ended_by_signals():
            return _find_or_make(progress or (lambda done, total, what: None))
    except (OSError, RuntimeError, ValueError) as error:  # no space, no process, no thread, ...
        raise BuildError(str(error)) from error


def _find_or_make(progress: Progress) -> Path:
    tools = Toolchain.find()
    found = cache.find(tools)
    if found:
        return found
    with cache.lock() as place:
        found = cache.find(tools)  # by another process, meanwhile
        if found:
            return found
        cache.tidy()
        with tempfile.TemporaryDirectory(dir=place, prefix=cache.UNFINISHED) as folder:
            try:
                library = _compile(tools, Path(folder), progress)
            except BuildError as error:
                cache.note_failure(tools, error)
                raise
            return cache.publish(library, tools)


# What ends a program, other than Ctrl-C: `kill`, and a terminal that is closed.
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Has SIGTERM and SIGHUP end what is in the block by an exception, as Ctrl-C does, where they
    would end the process at once: nothing that was started stays behind."""
    if threading.current_thread() is not threading.main_thread():  # which no signal interrupts
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        for each in taken:
            signal.signal(each, signal.SIG_IGN)  # it is ending
        raise SystemExit(128 + number)

    taken = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _compile(tools: Toolchain, folder: Path, progress: Progress) -> Path:
    sources = tools.sources()
    objects = [folder / f"{source.stem}.o" for source in sources]
    steps = len(sources) + 2
    # All is run by the pool's threads: none of them is interrupted between starting a process and
    # noting it.
    with ThreadPoolExecutor(os.cpu_count()) as pool, _Commands() as running:
        names = {}
        for source, target in zip(sources, objects, strict=True):
            compiling = tools.compilation(source, target)
            job = pool.submit(running.run, compiling, f"compiling {source.name}")
            names[job] = source.name
        for done, job in enumerate(as_completed(names), start=1):
            job.result()
            progress(done, steps, names[job])
        library = folder / f"{MODULE}.so"
        pool.submit(running.run, tools.linking(objects, library), "linking").result()
        progress(steps - 1, steps, "linking")
        trying = [sys.executable, "-I", "-c", _CHECK, str(library), *sys.path]
        pool.submit(running.run, trying, "trying the library").result()
        progress(steps, steps, "a first run")
    return library


class _Commands:
    """Commands that threads run; when the `with` block ends by an exception, as by Ctrl-C, so do
    they, and no other one starts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._over = False

    def __enter__(self) -> _Commands:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        with self._lock:
            self._over = True
            for process in self._running:
                commands.kill(process)

    def run(self, command: list[str], what: str) -> None:
        """Raises BuildError unless the command succeeds, and OSError where it cannot be started."""
        with self._lock:
            if self._over:
                raise BuildError(f"{what} was stopped")
            process = commands.start(command)
            self._running.add(process)
        try:
            output = commands.finish(process, _SECONDS)
            code = process.returncode
        except subprocess.TimeoutExpired as error:
            output, code = str(error), 1
        finally:
            with self._lock:
                self._running.discard(process)
        if code and not self._over:
            raise _failed(command, what, output, code)


def _failed(command: list[str], what: str, output: str, code: int) -> BuildError:
    log = cache.write_log(f"{' '.join(command)}\n{output}")
    return BuildError(f"{what} failed: {_telling_line(output, code)[:200]}", log)


def _telling_line(output: str, code: int) -> str:
    """The first line about an error; else the last one, or the exit status where there is none."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for line in lines:
        if "error" in line.lower():
            return line
    return lines[-1] if lines else f"exit status {code}"
