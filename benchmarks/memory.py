"""Peak memory of one attention call by its length, MLX's own and in blocks, forward and training.

    python benchmarks/memory.py

Mebibytes beyond the inputs, float32, causal, 4 query heads, 2 key heads, head dim 64, blocks of 128.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from timing import write

from mlx_flash_runtime.routes import blockwise, native

HEADS, KEY_HEADS, HEAD_DIM, BLOCK_SIZE = 4, 2, 64, 128


def peak(function: Callable[..., Any], inputs: list[mx.array]) -> float:
    """Mebibytes that the call needs beyond its inputs."""
    mx.eval(inputs)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(function(*inputs))
    return round((mx.get_peak_memory() - before) / 2**20, 1)


def row(length: int) -> dict[str, Any]:
    """All four peaks at one length."""
    heads = (HEADS, KEY_HEADS, KEY_HEADS)
    inputs = [mx.random.normal((1, count, length, HEAD_DIM)) for count in heads]
    peaks: dict[str, Any] = {"length": length}
    for name, route in (("mlx", native), ("blocks", blockwise)):

        def forward(q: mx.array, k: mx.array, v: mx.array, route: Any = route) -> mx.array:
            out: mx.array = route.run(q, k, v, scale=0.125, mask="causal", sinks=None, block_size=BLOCK_SIZE)
            return out

        training = mx.grad(lambda q, k, v, forward=forward: forward(q, k, v).square().sum(), argnums=(0, 1, 2))
        peaks[f"forward_{name}_mib"] = peak(forward, inputs)
        peaks[f"training_{name}_mib"] = peak(training, inputs)
    return peaks


def main() -> None:
    rows = []
    for length in (1024, 2048, 4096):
        rows.append(row(length))
        print(rows[-1], flush=True)
    print(f"written: {write('memory.json', rows)}")


if __name__ == "__main__":
    main()
