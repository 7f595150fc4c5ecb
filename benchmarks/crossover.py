"""Where attention by blocks is faster than MLX's own: the measurement behind
`mlx_flash_runtime/crossover.py`.

    python benchmarks/crossover.py [--quick]

Each row is one shape, forward or training (forward and the gradients of q, k, v), on MLX's own
attention and in blocks: same process, in turns, random data, after a check that both agree.
`ratio` is MLX's median time over that of the blocks; `processor_ratio` the same of processor time.
`planned` is what the planner takes today.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import mlx.core as mx
from store import write

from mlx_flash_runtime import explain, stock
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import Call, Problem
from mlx_flash_runtime.routes import blockwise
from mlx_flash_runtime.tools.bench.timing import Timing, interleaved

HEADS, KEY_HEADS = 2, 1
Attend = Callable[..., mx.array]


def grid(quick: bool) -> Iterator[tuple[str, int, int, int, str]]:
    """(dtype, head dim, query length, key length, mask)."""
    if quick:
        yield from (
            ("float32", 64, length, length, mask)
            for length in (128, 256)
            for mask in ("none", "causal")
        )
        return
    for mask in ("none", "causal"):
        for dtype in ("float32", "bfloat16"):
            for head_dim in (32, 64, 128, 256):
                lengths = (128, 256, 512) if head_dim == 256 else (128, 256, 512, 1024)
                yield from ((dtype, head_dim, length, length, mask) for length in lengths)
            yield from (
                (dtype, head_dim, length, length, mask)
                for head_dim, length in ((64, 2048), (32, 4096))
            )
        yield from (("float16", 64, length, length, mask) for length in (256, 512, 1024))
    # A prompt read in chunks, decoding, and masks that are arrays.
    for dtype in ("float32", "bfloat16"):
        for query_length in (1, 8, 16, 32, 64, 128, 256):
            yield dtype, 64, query_length, 1024, "causal"
        yield from (
            (dtype, 64, length, length, mask)
            for length in (256, 1024)
            for mask in ("bool", "additive")
        )


def arrays(problem: Problem) -> tuple[list[mx.array], Any]:
    """Random q, k, v and the mask."""
    p, dtype = problem, getattr(mx, problem.dtype)
    shapes = (
        (p.batch, p.query_heads, p.query_length, p.head_dim),
        (p.batch, p.key_heads, p.key_length, p.head_dim),
        (p.batch, p.key_heads, p.key_length, p.value_head_dim),
    )
    qkv = [mx.random.normal(shape).astype(dtype) for shape in shapes]
    seen = mx.random.uniform(shape=(p.query_length, p.key_length)) < 0.9
    masks = {
        "none": None,
        "causal": "causal",
        "bool": seen,
        "additive": mx.where(seen, 0.0, -1e4).astype(dtype),
    }
    mask = masks[p.mask]
    mx.eval(qkv, seen)
    if isinstance(mask, mx.array):
        mx.eval(mask)
    return qkv, mask


def measure(problem: Problem, rounds: int) -> list[dict[str, Any]]:
    """One row for the forward pass and one for training."""
    qkv, mask = arrays(problem)
    block_size = blockwise.block_size(problem, current_device())
    scale = problem.head_dim**-0.5

    def mlx(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return stock.attention(q, k, v, scale=scale, mask=mask)

    def blocks(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return blockwise.run(
            Call(problem, q, k, v, scale, mask if isinstance(mask, mx.array) else None), block_size
        )

    def forward(attend: Attend) -> Callable[[], mx.array]:
        return lambda: attend(*qkv)

    def training(attend: Attend) -> Callable[[], Any]:
        gradient = mx.grad(
            lambda *qkv: attend(*qkv).astype(mx.float32).square().sum(), argnums=(0, 1, 2)
        )
        return lambda: gradient(*qkv)

    difference = mx.abs(mlx(*qkv) - blocks(*qkv)).max().item()
    if not difference < (1e-5 if problem.dtype == "float32" else 3e-2):
        raise SystemExit(f"blocks and MLX differ by {difference} for {problem}")
    rows = []
    for phase, case in (("forward", forward), ("training", training)):
        runs = {"mlx": case(mlx), "blocks": case(blocks)}
        for run in runs.values():
            mx.eval(run())
        times = {name: milliseconds(timing) for name, timing in interleaved(runs, rounds).items()}
        rows.append(
            {
                "phase": phase,
                "dtype": problem.dtype,
                "mask": problem.mask,
                "head_dim": problem.head_dim,
                "query_length": problem.query_length,
                "key_length": problem.key_length,
                "block_size": block_size,
                "planned": explain(replace(problem, training=phase == "training")).route,
                **times,
                "ratio": round(times["mlx"]["median_ms"] / times["blocks"]["median_ms"], 2),
                "processor_ratio": round(
                    times["mlx"]["processor_ms"] / times["blocks"]["processor_ms"], 2
                ),
            }
        )
    return rows


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
    args = parser.parse_args()
    mx.random.seed(0)
    rows: list[dict[str, Any]] = []
    for dtype, head_dim, query_length, key_length, mask in grid(args.quick):
        problem = Problem(
            1,
            HEADS,
            KEY_HEADS,
            query_length,
            key_length,
            head_dim,
            head_dim,
            dtype=dtype,
            mask=mask,  # type: ignore[arg-type]
            mask_shape=(query_length, key_length) if mask in ("bool", "additive") else (),
        )
        rounds = (
            9
            if query_length * key_length <= 512**2
            else 5
            if query_length * key_length <= 1024**2
            else 2
        )
        for row in measure(problem, rounds):
            rows.append(row)
            print(
                f"{row['phase']:8} {dtype:8} {mask:8} D {head_dim:3} L {query_length:4} S {key_length:4} "
                f"mlx {row['mlx']['median_ms']:9.2f} ms  blocks {row['blocks']['median_ms']:9.2f} ms  "
                f"x{row['ratio']:.2f}  (processor time x{row['processor_ratio']:.2f})  {row['planned']}",
                flush=True,
            )
    if not args.quick:
        print(f"written: {write('crossover.json', rows)}")


if __name__ == "__main__":
    main()
