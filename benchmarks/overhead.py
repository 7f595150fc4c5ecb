"""What the patch adds to one attention call: the planner's lookup and the counting of the layer.

    python benchmarks/overhead.py

The call is a decoding step of one small layer, made the way mlx-lm makes it (a module's method calls a helper, which
calls MLX), and only built, not computed: MLX is lazy. Patched and unpatched in turns; microseconds per call. `wrapper`
is what any Python function in MLX's place would cost.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from store import write

from mlx_flash_runtime import patch
from mlx_flash_runtime.planner import planner_for
from mlx_flash_runtime.settings import Settings

CALLS, REPEATS = 5000, 15


def helper(queries: mx.array, keys: mx.array, values: mx.array, cache: Any, scale: float, mask: Any) -> mx.array:
    """As `mlx_lm.models.base.scaled_dot_product_attention`."""
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)


class Layer(nn.Module):
    """Attention with as many local names as a real layer has."""

    def __call__(self, x: mx.array, keys: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        queries, values = x, keys
        output = helper(queries, keys, values, cache=cache, scale=0.125, mask=mask)
        return output


def wrapper_of(stock: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """A function in MLX's place that does nothing."""

    def wrapper(q: Any, k: Any, v: Any, *, scale: Any, mask: Any = None, sinks: Any = None) -> mx.array:
        return stock(q, k, v, scale=scale, mask=mask, sinks=sinks)

    return wrapper


def microseconds(layer: Layer, q: mx.array, k: mx.array) -> float:
    """Per call."""
    start = time.perf_counter()
    for _ in range(CALLS):
        layer(q, k)
    return (time.perf_counter() - start) / CALLS * 1e6


def main() -> None:
    layer = Layer()
    q, k = mx.random.normal((1, 8, 1, 64)), mx.random.normal((1, 4, 100, 64))
    mx.eval(q, k)
    stock = mx.fast.scaled_dot_product_attention
    patch.install(planner_for(Settings(enabled=True)))
    candidates = {"mlx": stock, "wrapper": wrapper_of(stock), "patched": patch.scaled_dot_product_attention}
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(REPEATS):
        for name, function in candidates.items():
            mx.fast.scaled_dot_product_attention = function
            times[name].append(microseconds(layer, q, k))
    mx.fast.scaled_dot_product_attention = patch.scaled_dot_product_attention
    patch.uninstall()
    rows = [
        {"case": name, "median_us": round(statistics.median(values), 2), "min_us": round(min(values), 2)}
        for name, values in times.items()
    ]
    for row in rows:
        print(f"{row['case']:8} median {row['median_us']:6.2f} us  min {row['min_us']:6.2f} us")
    if "--dry-run" not in sys.argv:
        print(f"written: {write('overhead.json', rows)}")


if __name__ == "__main__":
    main()
