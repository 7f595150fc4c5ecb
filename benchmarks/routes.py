"""Where the planner leaves MLX's own path: time and peak memory of plain attention, stock and
ours, in one process.

    python benchmarks/routes.py MACHINE [--only TEXT] [--rounds N] [--json FILE]

Writes benchmarks/results/routes_MACHINE.json. A candidate that fails, for want of memory or
because MLX has no such thing, has the error in the place of its numbers. Exits with 1 if a case is
wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import mlx.core as mx
from route_cases import Case, Run, cases
from store import Result, parser_of, place

from mlx_flash_runtime import enable_flash_attention
from mlx_flash_runtime.patching import state
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.tools.bench.machine import is_out_of_memory
from mlx_flash_runtime.tools.bench.numbers import ratio, significant
from mlx_flash_runtime.tools.bench.routes_taken import in_words
from mlx_flash_runtime.tools.bench.timing import SideBySide, peak_memory, side_by_side

TITLE = "Where the planner leaves MLX's own path"
DEFINITIONS = (
    "plain: softmax(QKᵀ)V in MLX operations; stock: MLX's own attention; ours: flash attention "
    "enabled, on the routes named, those of the timed calls. One process, in turns, after a "
    "warm-up; medians per call, the ± is half the interquartile range; a timed region chains as "
    "many calls of each as the fastest takes to last 10 ms, 256 at most.",
    "Stock gets a mask as an array that exists already; ours makes it anew for every call, as a "
    "model does for every forward pass. Training: the gradients of all inputs. bfloat16, batch 1, "
    "16 heads on 4 key heads, causal, unless the name says otherwise.",
    "Memory: peak of one call beyond its inputs. Error: largest difference of ours from stock, "
    "relative to the largest element; a case is wrong where it exceeds four roundings to its "
    "type, or four times that of plain. With quantized keys, plain is MLX's attention on all of "
    "them dequantized, and ours is held against that.",
)
# The smallest difference between 1 and the next number; on CUDA, MLX multiplies float32 as TF32
# unless told otherwise.
EPSILON = {mx.float32: 2.0**-23, mx.bfloat16: 2.0**-7}
if current_device().backend == "cuda" and current_device().tf32:
    EPSILON[mx.float32] = 2.0**-10
REGION, LIMIT = 0.01, 4.0  # seconds of a timed region, at least, and of a case, about


def measured(case: Case, rounds: int) -> dict[str, Any]:
    """One row: of each candidate milliseconds (median and quartiles) and MiB, or its error; the
    routes that the timed calls of ours took, and how far it is from stock."""
    row: dict[str, Any] = {"case": case.name, "routes": None, "error": None, "wrong": False}
    runs: dict[str, Run] = {"stock": stock(case.run(case.attend, lambda: case.stock_arguments))}
    if case.plain is not None:
        runs["plain"] = stock(case.run(case.plain, lambda: case.stock_arguments))
    runs["ours"] = case.run(case.attend, case.arguments)
    for name in ("plain", "stock", "ours"):
        row |= {f"{name}_{key}": None for key in ("ms", "low_ms", "high_ms", "peak_mib", "failure")}
    results: dict[str, Sequence[mx.array]] = {}
    for name, run in list(runs.items()):
        try:
            results[name] = run(1)
            mx.eval(results[name])
            row[f"{name}_peak_mib"] = significant(peak_memory(partial(run, 1)) / 2**20)
        except (RuntimeError, ValueError) as error:
            row[f"{name}_failure"] = (
                "out of memory" if is_out_of_memory(error) else str(error)[:120]
            )
            del runs[name]
    row |= checked(results, case.reference, EPSILON[case.arrays[0].dtype])
    results.clear()
    if runs:
        measurement = timed(runs, rounds)
        row |= numbers_of(measurement) | {"routes": in_words(measurement.taken)}
    for name in ("plain", "stock"):
        row[f"over_{name}"] = ratio(row[f"{name}_ms"], row["ours_ms"])
    row["memory_ratio"] = ratio(row["stock_peak_mib"], row["ours_peak_mib"])
    return row


def timed(runs: dict[str, Run], rounds: int, limit: float = LIMIT) -> SideBySide:
    """The candidates in turns, in about `limit` seconds."""
    return side_by_side(runs, region=REGION, limit=limit, rounds=rounds)


def numbers_of(measured: SideBySide) -> dict[str, float]:
    """Milliseconds of each candidate, median and quartiles."""
    numbers: dict[str, float] = {}
    for name, timing in measured.timings.items():
        values = (significant(1e3 * value) for value in (timing.median, *timing.quartiles))
        keys = (f"{name}_ms", f"{name}_low_ms", f"{name}_high_ms")
        numbers |= dict(zip(keys, values, strict=True))
    return numbers


def stock(run: Run) -> Run:
    """`run` on MLX's own attention."""

    def paused(calls: int) -> Any:
        with state.paused():
            return run(calls)

    return paused


def checked(
    results: dict[str, Sequence[mx.array]], reference: str, epsilon: float
) -> dict[str, Any]:
    """The error of ours, and whether it is too large; neither where there is nothing to hold it
    against."""
    if not {"ours", reference} <= set(results):
        return {}
    error, rounding = difference(results["ours"], results[reference]), epsilon
    if reference == "stock" and "plain" in results:
        rounding = max(rounding, difference(results["plain"], results["stock"]))
    return {"error": significant(error, 2), "wrong": not error <= 4 * rounding}


def difference(ours: Sequence[mx.array], stock: Sequence[mx.array]) -> float:
    """The largest difference of any result, relative to its largest element."""
    pairs = [(x.astype(mx.float32), y.astype(mx.float32)) for x, y in zip(ours, stock, strict=True)]
    return max((mx.abs(x - y).max() / mx.maximum(mx.abs(y).max(), 1e-30)).item() for x, y in pairs)


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="cases whose name has this in it"
    )
    parser.add_argument("--rounds", type=int, default=40, metavar="N")
    args = parser.parse_args()
    chosen = [(name, make) for name, make in cases() if args.only in name]
    if not chosen:
        parser.error(
            f"no case has {args.only!r} in its name: {'; '.join(name for name, _ in cases())}"
        )
    command = f"python benchmarks/routes.py {args.machine}"
    result = Result(place(args, "routes"), title=TITLE, command=command, definitions=DEFINITIONS)
    enable_flash_attention()
    for name, make in chosen:
        result.add(measured(make(name), args.rounds))
        print(told(result.rows[-1]), flush=True)
        mx.clear_cache()
    print(f"written: {result.path}")
    return 1 if any(row["wrong"] for row in result.rows) else 0


def told(row: dict[str, Any]) -> str:
    """One line of a row."""
    times = [
        f"{name} {row[f'{name}_failure'] or row[f'{name}_ms']}"
        for name in ("plain", "stock", "ours")
    ]
    wrong = " WRONG" if row["wrong"] else ""
    return f"{row['case']}: {', '.join(times)} ms; {row['routes']}, x{row['over_stock']}{wrong}"


if __name__ == "__main__":
    sys.exit(main())
