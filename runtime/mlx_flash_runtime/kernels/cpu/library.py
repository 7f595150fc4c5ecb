"""The kernel in this process: loaded from the cache, or built in the background for later."""

from __future__ import annotations

import atexit
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from ...environment import commands
from ...environment.announcement import announce
from ...environment.log import logger
from ...environment.variables import may_build
from . import cache
from .toolchain import MODULE, BuildError, Toolchain

LibraryState = Literal["ready", "building", "not built", "impossible"]

_DAY = 24 * 60 * 60  # seconds, for a build in the background that may have to wait for another one

_lock = threading.RLock()
_module: Any = None
_state: LibraryState | None = None  # None: not looked yet
_reason = ""

# In a process of its own, at the lowest priority: the program goes on meanwhile, and may end
# before.
_WORKER = """
import os, sys
sys.path[:] = sys.argv[1:]
os.nice(10)
from mlx_flash_runtime.kernels.cpu.build import build
from mlx_flash_runtime.kernels.cpu.toolchain import BuildError
try:
    build()
except BuildError as error:
    sys.exit(str(error))
"""


@dataclass(frozen=True)
class LibraryStatus:
    """How this process stands with the kernel, what stands against it (empty: nothing), and the
    library if it is loaded."""

    state: LibraryState
    reason: str
    library: Path | None


def is_ready() -> bool:
    """Whether the kernel can run in this process; looks once for a library in the cache, and loads
    it."""
    if _state is None:
        with _lock:
            if _state is None:
                _look()
    return _module is not None


def look_again() -> None:
    """Has the cache looked into anew: something was built."""
    global _state
    with _lock:
        if _module is None:
            _state = None


def status() -> LibraryStatus:
    """See `LibraryStatus`; builds nothing."""
    is_ready()
    assert _state is not None
    return LibraryStatus(_state, _reason, Path(_module.__file__) if _module else None)


def attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    scale: float,
    softcap: float | None,
    mask: mx.array | None,
    sinks: mx.array | None,
    visible: tuple[int, int, list[int]] | None,
) -> mx.array:
    """The kernel itself, which `is_ready`; arguments as in `attention` of `primitive.h`, `visible`
    the members of its `Structure`."""
    out: mx.array = _module.attention(q, k, v, scale, softcap, mask, sinks, visible)
    return out


def load(path: str | Path) -> Any:
    """The module in the library at `path`; raises BuildError if Python cannot load it."""
    loader = importlib.machinery.ExtensionFileLoader(MODULE, str(path))
    spec = importlib.util.spec_from_file_location(MODULE, path, loader=loader)
    assert spec is not None
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        # Types of MLX that the module does not know are another nanobind's.
        module.attention(*[mx.zeros((1, 1, 1, 1))] * 3, 1.0, None, None, None, None)
    except (ImportError, OSError, TypeError) as error:
        raise BuildError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from None
    return module


def want(then: Callable[[], None]) -> None:
    """Has the kernel built in the background if that was not tried yet, and calls `then` from
    another thread when it is there. A line on stderr says so at exit, or at once why it cannot be.
    `MLX_FLASH_BUILD=0` forbids it, silently."""
    global _state
    if _state != "not built" or not may_build():
        return
    with _lock:
        if _state != "not built":
            return
        _state = "building"
    if _reason:
        _give_up(_reason)
        return
    # A program frozen into one file is not a Python that runs code.
    if getattr(sys, "frozen", False) or not sys.executable:
        _give_up("this program has no Python to build with")
        return
    try:
        worker = commands.start([sys.executable, "-I", "-c", _WORKER, *sys.path])
        threading.Thread(
            target=_wait, args=(worker, then), daemon=True, name="flash attention build"
        ).start()
        atexit.register(_tell, os.getpid())
    except (OSError, RuntimeError) as error:  # the most processes or threads that the user may have
        _give_up(f"it cannot be built in the background ({error})")


def _tell(process: int) -> None:
    """At exit, not while a program may be in the middle of a table of its own."""
    if os.getpid() != process:
        return
    built = "flash attention: the CPU kernel was built in the background, once for this MLX"
    going_on = "flash attention: the CPU kernel is being built in the background, once for this MLX"
    if _state == "ready":
        announce(f"{built}; other programs have it from their start")
    elif _state == "building":
        announce(f"{going_on}; the next run has it")


def _wait(worker: subprocess.Popen[bytes], then: Callable[[], None]) -> None:
    try:
        lines = commands.finish(worker, _DAY).strip().splitlines()
    except (OSError, subprocess.TimeoutExpired) as error:
        _give_up(f"the build was ended ({error})")
        return
    if worker.returncode:
        _give_up(lines[-1] if lines else f"the build ended with status {worker.returncode}")
        return
    with _lock:
        _look()
    if _module is None:
        if _state != "impossible":  # else it was told
            _give_up(_reason)
        return
    then()


def _give_up(reason: str) -> None:
    global _state, _reason
    _state, _reason = "impossible", reason
    logger.warning("flash attention: no CPU kernel, so attention is slower: %s", reason)


def _look() -> None:
    """Loads the library if the cache has one, else notes what stands against building it (an empty
    reason: nothing)."""
    global _module, _state, _reason
    tools = None
    try:
        try:
            tools = Toolchain.find()
        except BuildError as error:
            _reason = str(error)
        path = cache.find(tools)
        if path is not None:
            _module = load(path)
            _state, _reason = "ready", ""
            return
        if tools is not None:
            _reason = cache.failure(tools)
    except cache.UntrustedFolder as error:  # told even where no kernel is wanted
        _give_up(str(error))
        return
    except (BuildError, OSError, RuntimeError, ValueError) as error:
        _reason = str(error)
    _state = "not built"
