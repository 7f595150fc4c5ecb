"""What a call costs in Python where a Metal kernel is planned for it, beside MLX's own function.

    python benchmarks/metal_overhead.py    # prints a table

No Mac is needed: nothing is computed, and within `mx.export_function` MLX makes a call of a Metal
kernel on any machine, its arguments checked and its text written as on a Mac. MLX's own function
makes the operations of its unfused way here, where a Mac's fused kernel is one operation.
Microseconds of processor time per call, the least of many repeats.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_flash_runtime import stock
from mlx_flash_runtime.kernels.metal import checked, mask_tiles
from mlx_flash_runtime.masks import window_mask
from mlx_flash_runtime.planning import planner
from mlx_flash_runtime.problem import Device
from mlx_flash_runtime.settings import Settings

CALLS, REPEATS = 50, 40
MAC = Device("metal", (0, 32, 4), 64 * 2**30, "Darwin", own_kernel=True)


def cases() -> dict[str, tuple[mx.array, mx.array, Any]]:
    """Queries, keys and a mask, by name."""
    key = mx.zeros((1, 2, 1024, 80), mx.float16)
    key_64 = mx.zeros((1, 2, 1024, 64), mx.float16)
    few, many = mx.zeros((1, 4, 1, 80), mx.float16), mx.zeros((1, 4, 512, 64), mx.float16)
    return {
        "one query": (few, key, None),
        "one query, left padding": (few, key, mx.zeros((1, 1, 1, 1024)) < 1),
        "512 queries, window": (many, key_64, window_mask(512, 64, 1024)),
        "512 queries, bool mask": (many, key_64, mx.zeros((512, 1024)) < 1),
    }


def microseconds(call: Callable[[], object]) -> float:
    """Processor time of one call."""
    call()
    least = float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        for _ in range(CALLS):
            call()
        least = min(least, time.process_time() - start)
    return 1e6 * least / CALLS


def measured(q: mx.array, k: mx.array, mask: Any) -> tuple[float, float, float]:
    """MLX's own function; the plan that is found, and the call by it."""
    plans = planner.Planner(Settings(True, route="metal_kernel"))
    results: list[float] = []

    def traced(q: mx.array, k: mx.array) -> mx.array:
        plan = plans.lookup(q, k, k, mask, None)
        assert plan.decision.route == "metal_kernel", plan.decision
        arguments = {"scale": 0.125, "mask": mask, "sinks": None}
        results[:] = (
            microseconds(lambda: stock.attention(q, k, k, **arguments)),
            microseconds(lambda: plans.lookup(q, k, k, mask, None)),
            microseconds(lambda: plan.run(q, k, k, **arguments)),
        )
        return q

    with tempfile.TemporaryDirectory() as folder:
        mx.export_function(str(Path(folder, "function")), traced, q, k)
    own, plan, call = results
    return own, plan, call


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    planner.current_device = lambda: MAC  # type: ignore[attr-defined]
    checked.run = lambda small, bits=None: True  # type: ignore[assignment]  # it runs on a Mac
    mask_tiles.Looks.hides_enough = lambda *masks: True  # type: ignore[method-assign]  # looks once
    print("| call | MLX's own, unfused | the plan, found | the kernel's call |")
    print("|---|---:|---:|---:|")
    for name, case in cases().items():
        print(f"| {name} | {' | '.join(f'{one:.1f}' for one in measured(*case))} |")


if __name__ == "__main__":
    main()
