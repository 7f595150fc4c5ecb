"""Our CUDA kernel against MLX's own attention, over lengths: the numbers behind
`routes/cuda_kernel.py`.

    python benchmarks/cuda_kernel.py MACHINE [--only TEXT] [--rounds N] [--json FILE]

Writes benchmarks/results/cuda_kernel_MACHINE.json.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import product
from typing import Any

import mlx.core as mx
from route_cases import Run
from routes import numbers_of, timed
from store import parser_of, place, write

from mlx_flash_runtime import stock
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import MaskKind, Problem
from mlx_flash_runtime.problem.masks import Window, window_mask
from mlx_flash_runtime.routes import cuda_kernel
from mlx_flash_runtime.stock.fused import is_fused
from mlx_flash_runtime.tools.bench.check import WrongResult, need_right
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
    "lengths near the one named; both kernels are loaded by then.",
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

Attend = Callable[[mx.array, mx.array, mx.array], mx.array]


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


def measured(problem: Problem, rounds: int) -> dict[str, Any]:
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
    need_right(problem, inputs_of(problem, q, k, v), attends)
    runs: dict[str, Run] = {
        name: partial(chained, partial(one, attend, k, v), q) for name, attend in attends.items()
    }
    row |= numbers_of(timed(runs, rounds, LIMIT))
    row["over_stock"] = ratio(row["stock_ms"], row["kernel_ms"])
    return row | {f"{name}_first_ms": first_call(problem, name) for name in attends}


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


def measure_all(
    name: str,
    description: str | None,
    problems: Sequence[Problem],
    measured: Callable[[Problem, int], dict[str, Any]],
    *,
    title: str,
    definitions: Sequence[str],
    needs: str | None = None,
) -> None:
    """The command of a script `name` that measures a row a problem on CUDA: prints each, and writes
    them; exits with 1 where a result is wrong, which has no row. `needs` is a package that must be
    there."""
    parser = parser_of(description)
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="problems whose words have this in them"
    )
    parser.add_argument("--rounds", type=int, default=12, metavar="N")
    args = parser.parse_args()
    if current_device().backend != "cuda":
        parser.error(f"it measures a kernel for CUDA, and the device is {current_device().backend}")
    if needs is not None and find_spec(needs) is None:
        parser.error(f"it needs {needs}: pip install {needs}")
    chosen = [problem for problem in problems if args.only in str(problem)]
    if not chosen:
        parser.error(f"no problem has {args.only!r} in its words: {'; '.join(map(str, problems))}")
    path = place(args, name)
    rows = []
    wrong = False
    for problem in chosen:
        try:
            rows.append(measured(problem, args.rounds))
            print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
        except WrongResult as error:
            print(f"WRONG, left out: {error}", file=sys.stderr)
            wrong = True
        mx.clear_cache()
    command = f"python benchmarks/{name}.py {args.machine}"
    print(f"written: {write(path, rows, title=title, command=command, definitions=definitions)}")
    if wrong:
        sys.exit(1)


def main() -> None:
    measure_all(
        "cuda_kernel",
        __doc__,
        list(problems()),
        measured,
        title=TITLE,
        definitions=DEFINITIONS,
    )


if __name__ == "__main__":
    main()
