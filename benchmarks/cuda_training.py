"""The CUDA kernels' gradients against MLX's own, over lengths: the numbers behind
`routes/cuda_kernel.py` in training.

    python benchmarks/cuda_training.py MACHINE [--only TEXT] [--rounds N] [--json FILE]

Writes benchmarks/results/cuda_training_MACHINE.json. With PyTorch installed, its attention is
measured beside ours.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import mlx.core as mx
from cuda_kernel import inputs, mask_of
from cuda_rows import CHECKED_SCORES, measure_all
from pytorch import PYTORCH, best_of_pytorch
from route_cases import Run
from routes import numbers_of, timed

from mlx_flash_runtime import stock
from mlx_flash_runtime.planning.choice import choose
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import Launch, MaskKind, Problem
from mlx_flash_runtime.problem.masks import Window
from mlx_flash_runtime.routes import cuda_kernel
from mlx_flash_runtime.settings import Settings
from mlx_flash_runtime.stock.fused import is_fused
from mlx_flash_runtime.tools.bench.check import need_right
from mlx_flash_runtime.tools.bench.inputs import Inputs
from mlx_flash_runtime.tools.bench.numbers import ratio, significant
from mlx_flash_runtime.tools.bench.timing import chained

TITLE = "Training with the CUDA kernels"
DEFINITIONS = (
    "A forward pass and its gradient; batch 1, 16 heads on 8 key heads; milliseconds, medians in "
    "turns in one process after a warm-up, ± half the interquartile range; a timed region chains "
    "as many as it takes to last 10 ms. MiB: MLX's memory at the peak of one.",
    "Fused: MLX has a fused gradient for it, which cuDNN provides. Others: the route that we take "
    "without the kernels, which leads to MLX's own.",
    PYTORCH,
)
LIMIT = 0.8  # seconds of a row, about
LENGTHS = {
    ("bfloat16", 64): (500, 1000, 1024, 2000, 2048, 4096, 8100, 8192),
    ("bfloat16", 128): (500, 1000, 1024, 2000, 2048, 4000, 4096, 8192),
    ("bfloat16", 256): (256, 512, 1000, 2048, 4096, 8192),
    ("float32", 64): (256, 512, 1024, 2048, 4096),
    ("float32", 128): (512, 1024, 2048, 4096),
}
WITHOUT_MASK = ((4096, "bfloat16", 64), (4096, "bfloat16", 128), (4096, "bfloat16", 256))
# Length, window, head dim; and lengths and head dims of masks that are any array.
WINDOWS = ((2048, 512, 64), (8192, 1024, 128), (4096, 512, 256), (1024, 256, 128))
ARRAYS = ((2048, 128), (2000, 128), (1024, 256), (2048, 256))


def problems() -> Iterator[Problem]:
    """A causal mask, no mask, windows, arrays."""
    for (dtype, head_dim), lengths in LENGTHS.items():
        for length in lengths:
            yield of(length, dtype, head_dim, "causal")
    for length, dtype, head_dim in WITHOUT_MASK:
        yield of(length, dtype, head_dim, "none")
    for length, window, head_dim in WINDOWS:
        shape = {"mask_shape": (length, length), "structure": Window(window)}
        yield replace(of(length, "bfloat16", head_dim, "window"), **shape)
    for length, head_dim in ARRAYS:
        for kind in ("bool", "additive"):
            yield replace(of(length, "bfloat16", head_dim, kind), mask_shape=(length, length))


def of(length: int, dtype: str, head_dim: int, mask: MaskKind) -> Problem:
    """16 heads on 8 key heads, in training."""
    return Problem(
        1, 16, 8, length, length, head_dim, head_dim, dtype=dtype, mask=mask, training=True
    )


def candidates(problem: Problem) -> dict[str, Launch]:
    """MLX's own function, the best of the other routes, and the kernels."""
    device = current_device()
    others = choose(problem, replace(device, own_kernel=False), Settings(True))
    found: dict[str, Launch] = {"stock": stock.attention}
    if not others.route.is_stock:
        found["others"] = others.route.launch(problem, device, others.block_size)
    found["kernel"] = cuda_kernel.launch(problem, device, None)
    return found


def step(
    attend: Launch, problem: Problem, rest: Sequence[mx.array], mask: Any, q: mx.array
) -> list[mx.array]:
    """One forward pass and the gradients of q, k and v."""
    k, v, cotangent = rest
    scale = problem.head_dim**-0.5

    def attention(*arrays: mx.array) -> mx.array:
        return attend(*arrays, scale=scale, mask=mask, sinks=None)

    outputs, gradients = mx.vjp(attention, [q, k, v], [cotangent])
    return [*outputs, *gradients]


def measured(problem: Problem, args: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    q, k, v = inputs(problem)
    cotangent = inputs(replace(problem, head_dim=problem.value_head_dim))[0] + 0.5
    array = mask_of(problem)
    mask = "causal" if problem.mask == "causal" else array
    mx.eval(cotangent, [] if array is None else array)
    row: dict[str, Any] = {
        "dtype": problem.dtype,
        "head_dim": problem.head_dim,
        "length": problem.query_length,
        "mask": f"window {problem.window}" if problem.window else problem.mask,
        "fused": is_fused(problem, current_device())[0],
    }
    attends = candidates(problem)
    arguments = {"scale": problem.head_dim**-0.5, "mask": mask, "sinks": None}
    functions = {name: partial(attend, **arguments) for name, attend in attends.items()}
    need_right(problem, Inputs(q, k, v, mask, None, cotangent), functions, CHECKED_SCORES)
    runs: dict[str, Run] = {}
    for name, attend in attends.items():
        one = partial(step, attend, problem, (k, v, cotangent), mask)
        runs[name] = partial(chained, one, q)
        mx.eval(runs[name](1))
        row[f"{name}_mib"] = peak(runs[name])
    measurement = timed(runs, args.rounds, LIMIT)
    row |= numbers_of(measurement)
    row["over_stock"] = ratio(row["stock_ms"], row["kernel_ms"])
    if "others_ms" in row:
        row["over_others"] = ratio(row["others_ms"], row["kernel_ms"])
    if find_spec("torch") and problem.mask in ("causal", "none"):
        mx.clear_cache()
        row |= best_of_pytorch(problem, measurement.calls)
        if "pytorch_ms" in row:
            row["over_pytorch"] = ratio(row["pytorch_ms"], row["kernel_ms"])
    return row


def peak(run: Run) -> float:
    """MiB at the peak of one, beyond the inputs."""
    mx.synchronize()  # for what the run before leaves to be freed
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    results = run(1)
    mx.eval(results)
    return significant((mx.get_peak_memory() - before) / 2**20)


if __name__ == "__main__":
    measure_all(sys.modules[__name__])
