"""Peak memory of one attention call by its length, MLX's own and in blocks, forward and training.

    python benchmarks/memory.py

Takes some minutes and writes benchmarks/results/memory.json.

Mebibytes beyond the inputs, float32, causal, 4 query heads, 2 key heads, head dim 64, blocks of
128. MLX's own up to a length of 4,096: from there on it takes 4 times as much with every doubling,
and minutes.
"""

from __future__ import annotations

import argparse
from typing import Any

import mlx.core as mx
from store import write

from mlx_flash_runtime import stock
from mlx_flash_runtime.problem import Call, Problem
from mlx_flash_runtime.routes import blockwise
from mlx_flash_runtime.tools.bench.timing import peak_memory

HEADS, KEY_HEADS, HEAD_DIM, BLOCK_SIZE = 4, 2, 64, 128
SCALE = HEAD_DIM**-0.5
LENGTHS = (1024, 2048, 4096, 8192, 16384)
MLX_UP_TO = 4096


def blocks(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    """Causal attention by the route with blocks."""
    problem = Problem.of(q, k, v, "causal")
    assert problem is not None
    return blockwise.run(Call(problem, q, k, v, SCALE), BLOCK_SIZE)


def mlx(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    """The same by MLX's own function."""
    return stock.attention(q, k, v, scale=SCALE, mask="causal")


def row(length: int) -> dict[str, Any]:
    """The peaks at one length, of MLX's own where it is measured."""
    inputs = [
        mx.random.normal((1, count, length, HEAD_DIM)) for count in (HEADS, KEY_HEADS, KEY_HEADS)
    ]
    mx.eval(inputs)
    peaks: dict[str, Any] = {"length": length}
    measured = (("mlx", mlx), ("blocks", blocks)) if length <= MLX_UP_TO else (("blocks", blocks),)
    for name, attend in measured:
        training = mx.grad(
            lambda q, k, v, attend=attend: attend(q, k, v).square().sum(), argnums=(0, 1, 2)
        )
        for phase, function in (("forward", attend), ("training", training)):
            peak = peak_memory(lambda function=function: function(*inputs))
            peaks[f"{phase}_{name}_mib"] = round(peak / 2**20, 1)
    return peaks


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    rows = []
    for length in LENGTHS:
        rows.append(row(length))
        print(rows[-1], flush=True)
    path = write(
        "memory.json",
        rows,
        title="Peak memory by length, in blocks",
        command="python benchmarks/memory.py",
        definitions=(" ".join(__doc__.strip().splitlines()[-2:]),),
    )
    print(f"written: {path}")


if __name__ == "__main__":
    main()
