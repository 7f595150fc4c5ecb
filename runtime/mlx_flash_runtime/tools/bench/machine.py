"""The machine that a measurement ran on, and how much memory it has left."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import mlx.core as mx

from ...planning.machine import current_device
from ...stock.release import mlx_version
from ...version import __version__


def machine() -> dict[str, str | int | float]:
    """Machine, operating system, device and versions, as every result carries them."""
    mac = platform.mac_ver()[0]  # empty elsewhere
    return {
        "system": "macOS" if mac else platform.system(),
        "release": mac or platform.release().partition("-")[0],
        "machine": platform.machine(),
        "cores": os.cpu_count() or 0,
        "load": round(os.getloadavg()[0], 2),
        "backend": current_device().backend,
        "device": str(mx.device_info().get("device_name", "")),
        "mlx": mlx_version(),
        "runtime": __version__,
        "python": platform.python_version(),
    }


def described(facts: dict[str, str | int | float]) -> str:
    """One line: `AMD EPYC (cpu), 2 cores, Linux 6.1 x86_64, MLX 0.32.4, Python 3.11.7, load
    0.5`."""
    return (
        f"{facts['device'] or 'unknown device'} ({facts['backend']}), {facts['cores']} cores, "
        f"{facts['system']} {facts['release']} {facts['machine']}, MLX {facts['mlx']}, "
        f"mlx-flash-runtime {facts['runtime']}, Python {facts['python']}, load {facts['load']} at "
        "the start"
    )


def free_memory() -> int:
    """Bytes that a computation on the default device may still take, within MLX's own memory
    limit; what MLX keeps cached counts as free."""
    device = current_device()
    active, cached = mx.get_active_memory(), mx.get_cache_memory()
    free = int(0.95 * device.memory) - active
    meminfo = Path("/proc/meminfo")
    if device.backend == "cpu" and meminfo.exists():
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
        free = int(found[1]) * 1024 + cached if found else free
    if hasattr(mx, "get_memory_limit"):  # not in every MLX known here
        free = min(free, mx.get_memory_limit() - active)
    return max(0, free)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether MLX says with `error` that an allocation failed."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and re.search(r"malloc|out of memory|allocat", str(error), re.I) is not None
    )
