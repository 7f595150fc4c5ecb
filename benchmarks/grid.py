"""Plain attention, MLX's own and ours, side by side: batch 1-2, length 64-128, head dim 32-64 (8 heads), and longer.

    python benchmarks/grid.py [--name cpu]

Same process, in turns, random data, behind a check that all three agree. Speedups are ratios of the same row's medians.
Writes `benchmarks/results/grid_NAME.json` and prints the table as Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
from timing import interleaved, write

from mlx_flash_runtime import enable_flash_attention, explain

HEADS = 8
ROUNDS = {
    128: 64,
    4096: 16,
}  # calls in one timed run, by length: a single one is over too soon
MLX_ATTENTION = mx.fast.scaled_dot_product_attention  # kept from before the patch
# Against float32 plain attention: what one rounding of the output to the type can differ by, a few times over.
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}


def shapes() -> Iterator[tuple[int, int, int]]:
    """(batch, length, head dim): the eight configurations, then longer ones."""
    yield from ((batch, length, dim) for batch in (1, 2) for length in (64, 128) for dim in (32, 64))
    yield from ((1, length, dim) for length in (512, 1024, 4096) for dim in (64, 128))


def plain(q: mx.array, k: mx.array, v: mx.array, scale: float) -> mx.array:
    """softmax(Q K^T) V in MLX operations, as it is written by hand."""
    return mx.softmax((q * scale) @ k.swapaxes(-1, -2), axis=-1) @ v


def row(batch: int, length: int, dim: int, dtype: str, repeats: int) -> dict[str, Any]:
    """One configuration, measured."""
    q, k, v = (mx.random.normal((batch, HEADS, length, dim)).astype(getattr(mx, dtype)) for _ in range(3))
    mx.eval(q, k, v)
    scale = dim**-0.5
    rounds = next(rounds for longest, rounds in ROUNDS.items() if length <= longest)

    cases: dict[str, Callable[[], mx.array]] = {
        "plain": lambda: plain(q, k, v, scale),
        "mlx": lambda: MLX_ATTENTION(q, k, v, scale=scale),
        "flash": lambda: mx.fast.scaled_dot_product_attention(q, k, v, scale=scale),
    }
    expected = plain(*(x.astype(mx.float32) for x in (q, k, v)), scale)
    for output in (cases["mlx"](), cases["flash"]()):
        error = mx.abs(output.astype(mx.float32) - expected).max().item()
        if not error <= TOLERANCE[dtype]:
            raise SystemExit(f"wrong by {error}: batch {batch}, length {length}, head dim {dim}, {dtype}")
    times = interleaved({name: many(call, rounds) for name, call in cases.items()}, repeats)
    medians = {name: times[name]["median_ms"] / rounds for name in cases}
    return {
        "batch": batch,
        "length": length,
        "head_dim": dim,
        "dtype": dtype,
        "route": explain(q, k, v, scale=scale).route,
        "plain_ms": round(medians["plain"], 4),
        "mlx_ms": round(medians["mlx"], 4),
        "flash_ms": round(medians["flash"], 4),
        "over_plain": round(medians["plain"] / medians["flash"], 3),
        "over_mlx": round(medians["mlx"] / medians["flash"], 3),
    }


def many(call: Callable[[], mx.array], rounds: int) -> Callable[[], list[mx.array]]:
    return lambda: [call() for _ in range(rounds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default=str(mx.default_device().type).rpartition(".")[2], help="of the result file")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    enable_flash_attention()
    rows = [row(*shape, dtype, args.repeats) for dtype in TOLERANCE for shape in shapes()]
    print("| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|")
    for entry in rows:
        print("| " + " | ".join(map(str, entry.values())) + " |")
    for dtype in TOLERANCE:
        ratios = [entry["over_plain"] for entry in rows if entry["dtype"] == dtype and entry["length"] <= 128]
        print(f"{dtype}: over plain, the eight: mean {sum(ratios) / len(ratios):.3f}, best {max(ratios):.3f}")
    print(write(f"grid_{args.name}.json", rows))


if __name__ == "__main__":
    main()
