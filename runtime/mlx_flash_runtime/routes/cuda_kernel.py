"""Our own kernel on CUDA, where MLX has no fused one: float32, and head dims above 128."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache

import mlx.core as mx

from .. import stock
from ..crossover import skipped_share
from ..kernels import cuda
from ..problem import Call, Device, Problem

NAME = "cuda_kernel"

_CAPABILITY = (8, 0)  # of the first GPUs with these tensor core instructions
_LARGEST_HEAD_DIM = 256
# Fewer queries would leave most of a product's rows empty; MLX has kernels for matrices times vectors.
_FEWEST_QUERIES = 9
# float32 rows in steps of this: where MLX's own products are not TF32 ones, ours must not be either.
_TF32_STEP = 8

# By measurement on an H200 (benchmarks/routes.py), with the bytes of a row of queries: the most scores for which it is
# faster than MLX's unfused attention, which multiplies faster where there is much to multiply.
_MOST_SCORES = {256: math.inf, 512: 2**27, 1024: 2**21}
_MOST_SCORES_OF_16_BITS = {256: math.inf, 512: 2**22}
# Where this share of the scores is hidden by a causal mask, it skips them: faster at any size, and with long rows of
# float32 at this many times as many scores.
_SKIPPED_SHARE = 0.375
_LONG_ROW = 512
_CAUSAL_GROWTH = 4


def holds(problem: Problem, device: Device) -> tuple[bool, str]:
    """Calls that fit the tensor cores, outside of gradients."""
    if device.backend != "cuda":
        return False, "it is a kernel for CUDA"
    if device.capability < _CAPABILITY:
        return False, "this GPU has no tensor cores of the kind that the CUDA kernel uses"
    if problem.training:
        return False, "the CUDA kernel has no gradient"
    if problem.softcap is not None or problem.mask not in cuda.MASKS:
        return False, "the CUDA kernel has no such mask or softcap"
    if problem.query_length < _FEWEST_QUERIES:
        return False, "the CUDA kernel is one for many queries"
    in_steps = problem.head_dim % _TF32_STEP == problem.value_head_dim % _TF32_STEP == 0
    if problem.dtype == "float32" and not (device.tf32 and in_steps):
        return False, "the CUDA kernel's TF32 products are less exact than MLX's for it"
    if max(problem.head_dim, problem.value_head_dim) > _LARGEST_HEAD_DIM or cuda.tiles(problem) is None:
        return False, "its head dim is too large for the CUDA kernel"
    return True, "one kernel on tensor cores, without scores in memory"


def pays(problem: Problem, device: Device) -> tuple[bool, str]:
    """Up to a number of scores; further where a causal mask lets it skip many."""
    row = problem.item_bytes * max(problem.head_dim, problem.value_head_dim)
    limits = _MOST_SCORES if problem.dtype == "float32" else _MOST_SCORES_OF_16_BITS
    most = next(scores for bytes_of_row, scores in limits.items() if row <= bytes_of_row)
    if problem.mask == "causal" and skipped_share(problem) >= _SKIPPED_SHARE:
        most = _CAUSAL_GROWTH * most if row > _LONG_ROW else math.inf
    if problem.score_count <= most:
        return True, "the CUDA kernel is faster than MLX's unfused attention"
    return False, "the CUDA kernel is not faster for so many scores"


def block_size(problem: Problem, device: Device) -> int | None:
    """None: its blocks are those of the hardware."""
    return None


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """Nothing."""
    return 0


def run(call: Call, block_size: int | None) -> mx.array:
    """The kernel, by way of a compiled function; MLX's own attention inside of the user's transformations."""
    arrays = [x.astype(call.dtype) for x in (call.q, call.k, call.v)]
    arrays += [x for x in (call.mask, call.sinks) if x is not None]
    return _compiled(call.problem, call.scale, str(mx.default_stream(mx.default_device())))(*arrays)


@lru_cache(maxsize=1024)
def _compiled(problem: Problem, scale: float, stream: str) -> Callable[..., mx.array]:
    """The kernel as a function of q, k, v, then mask and sinks if any; one for each stream, as what is compiled stays
    on that of its first call.

    `mx.compile` makes it: what it replays costs a third of what describing a kernel costs in Python. It also tells
    whether the arrays are those of a transformation (vmap, which no custom kernel has, a gradient, a compilation):
    it then runs the Python function itself, each time, as it does else only for the first call.
    """
    runs = threading.local()

    def call(arrays: Sequence[mx.array]) -> Call:
        q, k, v, *rest = arrays
        mask = rest[0] if problem.has_array_mask else None
        return Call(problem, q, k, v, scale, mask, rest[-1] if problem.sinks else None)

    def kernel(*arrays: mx.array) -> mx.array:
        runs.count += 1
        return cuda.attention(call(arrays))

    compiled = mx.compile(kernel)

    def attention(*arrays: mx.array) -> mx.array:
        for _ in range(2):
            runs.count = 0
            out: mx.array = compiled(*arrays)
            if not runs.count:
                return out
        return stock.call(call(arrays))

    return attention
