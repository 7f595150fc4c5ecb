"""Side-by-side timing: every candidate in one process, interleaved, with medians."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

RESULTS = Path(__file__).parent / "results"


def interleaved(candidates: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each candidate over repeats taken in turns, after one warm-up; a candidate returns arrays.

    The median of the elapsed time with its spread, and the median of the processor time, which other programs on the
    machine disturb less.
    """
    for run in candidates.values():
        mx.eval(run())
    elapsed: dict[str, list[float]] = {name: [] for name in candidates}
    processor: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for number in range(repeats):
        # Another one goes first each time: what is measured last finds caches and clocks warm.
        for name in (*names[number % len(names) :], *names[: number % len(names)]):
            run = candidates[name]
            start, processor_start = time.perf_counter(), time.process_time()
            mx.eval(run())
            elapsed[name].append(1e3 * (time.perf_counter() - start))
            processor[name].append(1e3 * (time.process_time() - processor_start))
    return {
        name: {
            "median_ms": round(statistics.median(elapsed[name]), 3),
            "min_ms": round(min(elapsed[name]), 3),
            "max_ms": round(max(elapsed[name]), 3),
            "processor_ms": round(statistics.median(processor[name]), 3),
        }
        for name in candidates
    }


def write(name: str, rows: list[dict[str, Any]]) -> Path:
    """Writes rows with the machine and the versions they were measured on."""
    path = RESULTS / name
    path.parent.mkdir(exist_ok=True)
    machine = {
        "system": platform.system(),
        "machine": platform.machine(),
        "device": mx.device_info().get("device_name", ""),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "backend": str(mx.default_device().type).removeprefix("DeviceType."),
        "mlx": mx.__version__,
        "python": platform.python_version(),
    }
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return path
