"""Peak memory of one attention call by its length, MLX's own and in blocks, forward and training.

    python benchmarks/memory.py MACHINE [--json FILE]

Takes some minutes and writes benchmarks/results/memory_MACHINE.json.

Mebibytes beyond the inputs, float32, causal, 4 query heads, 2 key heads, head dim 64, blocks of
128. MLX's own up to a length of 4,096: from there on it takes 4 times as much with every doubling,
and minutes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import mlx.core as mx
from store import Result, parser_of, place

from mlx_flash_runtime import stock
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import Launch, Problem
from mlx_flash_runtime.routes import blockwise
from mlx_flash_runtime.tools.bench.inputs import make_inputs
from mlx_flash_runtime.tools.bench.timing import peak_memory

HEADS, KEY_HEADS, HEAD_DIM, BLOCK_SIZE = 4, 2, 64, 128
LENGTHS = (1024, 2048, 4096, 8192, 16384)
MLX_UP_TO = 4096


def problem_of(length: int) -> Problem:
    return Problem(1, HEADS, KEY_HEADS, length, length, HEAD_DIM, HEAD_DIM, mask="causal")


def attentions(length: int) -> dict[str, Launch]:
    """MLX's own function, while it takes no minutes, and the route with blocks."""
    blocks = blockwise.launch(problem_of(length), current_device(), BLOCK_SIZE)
    return {"mlx": stock.attention, "blocks": blocks} if length <= MLX_UP_TO else {"blocks": blocks}


def row(length: int) -> dict[str, Any]:
    """The peaks at one length, of MLX's own where it is measured."""
    made = make_inputs(problem_of(length))
    inputs = [made.q, made.k, made.v]
    peaks: dict[str, Any] = {"length": length}
    for name, launch in attentions(length).items():
        attend = partial(launch, scale=made.scale, mask=made.mask, sinks=made.sinks)
        training = mx.grad(partial(loss, attend), argnums=(0, 1, 2))
        for phase, function in (("forward", attend), ("training", training)):
            peak = peak_memory(partial(function, *inputs))
            peaks[f"{phase}_{name}_mib"] = round(peak / 2**20, 1)
    return peaks


def loss(attend: Launch, q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    return attend(q, k, v).square().sum()


def main() -> None:
    args = parser_of(__doc__).parse_args()
    result = Result(
        place(args, "memory"),
        title="Peak memory by length, in blocks",
        command=f"python benchmarks/memory.py {args.machine}",
        definitions=(" ".join(__doc__.strip().splitlines()[-3:]),),
    )
    for length in LENGTHS:
        result.add(row(length))
        print(result.rows[-1], flush=True)
    print(f"written: {result.path}")


if __name__ == "__main__":
    main()
