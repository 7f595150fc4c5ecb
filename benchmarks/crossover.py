"""Where attention by blocks is faster than MLX's own: the measurement behind
`mlx_flash_runtime/ops/crossover.py`.

    python benchmarks/crossover.py [--quick] [--json FILE]

Each row is one shape, forward or training (forward and the gradients of q, k, v), on MLX's own
attention and in blocks: same process, in turns, random data, after a check of the blocks' results,
and of the gradients where those are timed, against float64 attention.
`ratio` is MLX's median time over that of the blocks; `processor_ratio` the same of processor time.
`planned` is what the planner takes today.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from store import Result

from mlx_flash_runtime import explain, stock
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import MaskKind, Problem
from mlx_flash_runtime.routes import blockwise
from mlx_flash_runtime.tools.bench.check import need_right, run_phase
from mlx_flash_runtime.tools.bench.inputs import make_inputs
from mlx_flash_runtime.tools.bench.timing import Timing, interleaved

TITLE = "Attention by blocks and MLX's own"
HEADS, KEY_HEADS = 2, 1


def grid(quick: bool) -> Iterator[Problem]:
    """Squares of queries and keys; then a prompt read in chunks, decoding, and masks that are
    arrays."""
    if quick:
        for length in (128, 256):
            for mask in ("none", "causal"):
                yield of("float32", 64, length, length, mask)
        return
    for mask in ("none", "causal"):
        for dtype in ("float32", "bfloat16"):
            for head_dim in (32, 64, 128, 256):
                for length in (128, 256, 512) if head_dim == 256 else (128, 256, 512, 1024):
                    yield of(dtype, head_dim, length, length, mask)
            yield of(dtype, 64, 2048, 2048, mask)
            yield of(dtype, 32, 4096, 4096, mask)
        for length in (256, 512, 1024):
            yield of("float16", 64, length, length, mask)
    for dtype in ("float32", "bfloat16"):
        for query_length in (1, 8, 16, 32, 64, 128, 256):
            yield of(dtype, 64, query_length, 1024, "causal")
        for length in (256, 1024):
            for mask in ("bool", "additive"):
                yield of(dtype, 64, length, length, mask)


def of(dtype: str, head_dim: int, queries: int, keys: int, mask: MaskKind) -> Problem:
    """Batch 1, 2 heads on 1 key head."""
    heads, dims = (HEADS, KEY_HEADS), (head_dim, head_dim)
    shape = (queries, keys) if mask in ("bool", "additive") else ()
    return Problem(1, *heads, queries, keys, *dims, dtype=dtype, mask=mask, mask_shape=shape)


def rounds_of(problem: Problem) -> int:
    """Fewer where a call takes long."""
    scores = problem.query_length * problem.key_length
    if scores <= 512**2:
        return 9
    return 5 if scores <= 1024**2 else 2


def measure(problem: Problem, rounds: int) -> list[dict[str, Any]]:
    """One row for the forward pass and one for training."""
    inputs = make_inputs(problem)
    scale, mask = inputs.scale, inputs.mask
    block_size = blockwise.block_size(problem, current_device())
    launch = blockwise.launch(problem, current_device(), block_size)

    def mlx(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return stock.attention(q, k, v, scale=scale, mask=mask)

    def blocks(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return launch(q, k, v, scale=scale, mask=mask, sinks=None)

    rows = []
    for phase in ("forward", "training"):
        one = replace(problem, training=phase == "training")
        need_right(one, inputs, {"stock": mlx, "blocks": blocks})
        runs = {}
        for name, attend in (("mlx", mlx), ("blocks", blocks)):
            runs[name] = partial(run_phase, one, attend, inputs, inputs.cotangent)
        times = {name: milliseconds(timing) for name, timing in interleaved(runs, rounds).items()}
        planned = explain(one).route
        rows.append(row_of(problem, phase, times, block_size=block_size, planned=planned))
    return rows


def row_of(
    problem: Problem, phase: str, times: dict[str, dict[str, float]], **planned: Any
) -> dict[str, Any]:
    mlx, blocks = times["mlx"], times["blocks"]
    return {
        "phase": phase,
        "dtype": problem.dtype,
        "mask": problem.mask,
        "head_dim": problem.head_dim,
        "query_length": problem.query_length,
        "key_length": problem.key_length,
        **planned,
        **times,
        "ratio": round(mlx["median_ms"] / blocks["median_ms"], 2),
        "processor_ratio": round(mlx["processor_ms"] / blocks["processor_ms"], 2),
    }


def milliseconds(timing: Timing) -> dict[str, float]:
    """The median of the elapsed time with its spread, and the median of the processor time, which
    other programs on the machine disturb less."""
    return {
        "median_ms": round(1e3 * timing.median, 3),
        "min_ms": round(1e3 * min(timing.seconds), 3),
        "max_ms": round(1e3 * max(timing.seconds), 3),
        "processor_ms": round(1e3 * statistics.median(timing.processor), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few small shapes, to see that it runs; writes nothing",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="instead of that file")
    args = parser.parse_args()
    command = "python benchmarks/crossover.py"
    path = args.json.absolute() if args.json else "crossover.json"
    result = Result(path, title=TITLE, command=command, definitions=())
    for problem in grid(args.quick):
        for row in measure(problem, rounds_of(problem)):
            print(line_of(row), flush=True)
            if not args.quick:
                result.add(row)


def line_of(row: dict[str, Any]) -> str:
    """A row as it is printed."""
    words = [
        f"{row['phase']:8} {row['dtype']:8} {row['mask']:8} D {row['head_dim']:3}",
        f"L {row['query_length']:4} S {row['key_length']:4}",
        f"mlx {row['mlx']['median_ms']:9.2f} ms  blocks {row['blocks']['median_ms']:9.2f} ms ",
        f"x{row['ratio']:.2f}  (processor time x{row['processor_ratio']:.2f})  {row['planned']}",
    ]
    return " ".join(words)


if __name__ == "__main__":
    main()
