"""Our CUDA kernel against MLX's own attention, over lengths: the numbers behind
`routes/cuda_kernel.py`.

    python benchmarks/cuda_kernel.py MACHINE [--only TEXT] [--rounds N] [--cold] [--json FILE]

Writes benchmarks/results/cuda_kernel_MACHINE.json. With --cold, each call is timed once more with
nothing of it in the GPU's cache, as in a model, whose other layers ran since.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import mlx.core as mx
from cuda_rows import CHECKED_SCORES, measure_all
from route_cases import Run
from routes import numbers_of, timed

from mlx_flash_runtime import stock
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import MaskKind, Problem
from mlx_flash_runtime.problem.masks import Window, window_mask
from mlx_flash_runtime.routes import cuda_kernel
from mlx_flash_runtime.stock.fused import is_fused
from mlx_flash_runtime.tools.bench.check import need_right
from mlx_flash_runtime.tools.bench.inputs import Inputs, make_inputs
from mlx_flash_runtime.tools.bench.numbers import ratio, significant
from mlx_flash_runtime.tools.bench.timing import chained

TITLE = "The CUDA kernel"
DEFINITIONS = (
    "Batch 1, 16 heads on 4 key heads; milliseconds of a call, medians in turns in one process "
    "after a warm-up and a check against float64 attention, ± half the interquartile range; a "
    "timed region chains as many calls of each as the fastest takes to last 10 ms, 256 at most. "
    "Fused: MLX has a fused kernel for it, which cuDNN provides.",
    "First: the first call at a length that the process has not seen, the median of several such "
    "lengths near the one named; both kernels are loaded by then. Cold, where it was measured: the "
    "median where 128 MiB were written before each call, less that of the writing alone.",
)
LIMIT = 0.4  # seconds of a row, about
NEW_LENGTHS = 5
LENGTHS = {
    ("bfloat16", 32): (64, 128, 256, 512, 1024, 2048),
    ("bfloat16", 64): (64, 128, 256, 512, 1024, 2048, 4096, 8192),
    ("bfloat16", 80): (256, 1024, 4096),
    ("bfloat16", 128): (64, 128, 256, 512, 1024, 2048, 4096, 8192),
    ("bfloat16", 256): (64, 256, 512, 1024, 2048, 4096, 8192),
    ("float32", 64): (64, 256, 1024, 2048, 4096),
    ("float32", 128): (64, 256, 1024, 2048, 4096),
    ("float32", 256): (64, 256, 512, 1024, 2048, 4096),
}

# A prompt behind a long conversation: queries, keys.
CACHED = ((20, 1024), (20, 4096), (20, 16384), (100, 4096), (100, 16384), (500, 4096), (500, 16384))
CACHED_TYPES = (
    ("bfloat16", 64),
    ("bfloat16", 128),
    ("bfloat16", 256),
    ("float32", 64),
    ("float32", 128),
)

# Length, window, head dim; and lengths and head dims of a mask that is any array.
WINDOWS = ((2048, 512, 64), (16384, 1024, 128), (1024, 512, 256), (8192, 512, 256))
ARRAYS = tuple(product((128, 512, 1024, 4096), (64, 128, 256)))

FLUSHED = 2**27  # bytes; an H200 has 60 MB of cache
Attend = Callable[[mx.array, mx.array, mx.array], mx.array]
Call = Callable[[mx.array], list[mx.array]]  # on the queries


def problems() -> Iterator[Problem]:
    """A causal mask over as many keys as queries, no mask, a causal mask at the end of more keys,
    windows, arrays."""
    for (dtype, head_dim), lengths in LENGTHS.items():
        for length in lengths:
            for mask in ("causal", "none"):
                yield of(length, length, dtype, head_dim, mask)
    for dtype, head_dim in CACHED_TYPES:
        for queries, keys in CACHED:
            yield of(queries, keys, dtype, head_dim, "causal")
    for length, window, head_dim in WINDOWS:
        shape = {"mask_shape": (length, length), "structure": Window(window)}
        yield replace(of(length, length, "bfloat16", head_dim, "window"), **shape)
    for length, head_dim in ARRAYS:
        for kind in ("bool", "additive"):
            yield replace(
                of(length, length, "bfloat16", head_dim, kind), mask_shape=(length, length)
            )


def of(queries: int, keys: int, dtype: str, head_dim: int, mask: MaskKind) -> Problem:
    """16 heads on 4 key heads."""
    return Problem(1, 16, 4, queries, keys, head_dim, head_dim, dtype=dtype, mask=mask)


def inputs(problem: Problem) -> tuple[mx.array, mx.array, mx.array]:
    """q, k, v of a layer's layout: heads behind lengths in memory."""
    # Their mask is that of `mask_of`.
    made = make_inputs(replace(problem, mask="none", mask_shape=(), structure=None))
    q, k, v = (_heads_behind_lengths(x) for x in (made.q, made.k, made.v))
    mx.eval(q, k, v)
    return q, k, v


def inputs_of(problem: Problem, q: mx.array, k: mx.array, v: mx.array) -> Inputs:
    """The inputs as a check takes them; the cotangent `[B, H, L, D]` is random, of that layout."""
    mask = "causal" if problem.mask == "causal" else mask_of(problem)
    cotangent = mx.random.normal(q.shape, key=mx.random.key(1)).astype(q.dtype)
    return Inputs(q, k, v, mask, None, _heads_behind_lengths(cotangent))


def _heads_behind_lengths(x: mx.array) -> mx.array:
    return mx.swapaxes(mx.contiguous(mx.swapaxes(x, 1, 2)), 1, 2)


def mask_of(problem: Problem) -> mx.array | None:
    """The array of a mask that is one: a window, or what a causal mask shows but for one row."""
    queries, keys = problem.query_length, problem.key_length
    if not problem.has_array_mask:
        return None
    if problem.window is not None:
        return window_mask(queries, problem.window)
    query = mx.arange(queries)[:, None]
    seen = (query >= mx.arange(keys)) | (query == queries // 2)
    if problem.mask == "bool":
        return seen
    return mx.where(seen, 0, -1e9).astype(getattr(mx, problem.dtype))


def candidates(problem: Problem) -> dict[str, Attend]:
    """MLX's own function and the kernel."""
    array, scale = mask_of(problem), problem.head_dim**-0.5
    mask = "causal" if problem.mask == "causal" else array
    if array is not None:
        mx.eval(array)
    kernel = cuda_kernel.launch(problem, current_device(), None)
    return {
        "stock": lambda q, k, v: stock.attention(q, k, v, scale=scale, mask=mask),
        "kernel": lambda q, k, v: kernel(q, k, v, scale=scale, mask=mask, sinks=None),
    }


def options(parser: argparse.ArgumentParser) -> None:
    """What this script takes beside what all of its kind do."""
    parser.add_argument("--cold", action="store_true", help="also with an empty cache of the GPU")


def measured(problem: Problem, args: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    q, k, v = inputs(problem)
    row: dict[str, Any] = {
        key: getattr(problem, key)
        for key in ("dtype", "head_dim", "query_length", "key_length", "mask")
    }
    if problem.window is not None:
        row["mask"] = f"window {problem.window}"
    row["fused"] = is_fused(problem, current_device())[0]
    attends = candidates(problem)
    need_right(problem, inputs_of(problem, q, k, v), attends, CHECKED_SCORES)
    calls = {name: partial(one, attend, k, v) for name, attend in attends.items()}
    runs: dict[str, Run] = {name: partial(chained, call, q) for name, call in calls.items()}
    row |= numbers_of(timed(runs, args.rounds, LIMIT))
    row["over_stock"] = ratio(row["stock_ms"], row["kernel_ms"])
    if args.cold:
        row |= cold(calls, q, args.rounds)
    return row | {f"{name}_first_ms": first_call(problem, name) for name in attends}


def cold(calls: dict[str, Call], q: mx.array, rounds: int) -> dict[str, float]:
    """Milliseconds of each call after more memory was written than the cache holds, less those of
    the writing alone."""
    buffer = mx.zeros((FLUSHED // 4,), mx.float32)
    mx.eval(buffer)

    def flush(x: mx.array) -> list[mx.array]:
        (then,) = mx.depends([buffer], [x])
        return [then + 1]

    def after_flush(call: Call, x: mx.array) -> list[mx.array]:
        (x,) = mx.depends([x], flush(x))
        return call(x)

    runs: dict[str, Run] = {"flush": partial(chained, flush, q)}
    for name, call in calls.items():
        runs[name] = partial(chained, partial(after_flush, call), q)
    medians = {name: timing.median for name, timing in timed(runs, rounds, LIMIT).timings.items()}
    alone = medians.pop("flush")
    return {
        f"{name}_cold_ms": significant(1e3 * (seconds - alone)) for name, seconds in medians.items()
    }


def one(attend: Attend, k: mx.array, v: mx.array, q: mx.array) -> list[mx.array]:
    """The results of one call."""
    return [attend(q, k, v)]


def first_call(problem: Problem, name: str) -> float:
    """Milliseconds."""
    seconds = []
    for fewer in range(1, NEW_LENGTHS + 1):
        lengths = problem.query_length - fewer, problem.key_length - fewer
        shape = lengths if problem.has_array_mask else ()
        new = replace(problem, query_length=lengths[0], key_length=lengths[1], mask_shape=shape)
        q, k, v = inputs(new)
        attend = candidates(new)[name]
        start = time.perf_counter()
        mx.eval(attend(q, k, v))
        mx.synchronize()
        seconds.append(time.perf_counter() - start)
    return significant(1e3 * statistics.median(seconds))


if __name__ == "__main__":
    measure_all(sys.modules[__name__])
