"""Our own kernel on CUDA: float32 and head dims above 128, for which MLX has none that is fused, and short 16-bit
calls, which cost less to launch than through cuDNN.

MLX compiles a custom kernel in every process that uses it, for seconds. That pays by itself only for the largest calls;
for others `mlx-flash tune` decides, whose user knows that they will be many.
"""

from __future__ import annotations

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

# By measurement on an H200 (benchmarks/routes.py): float32 calls of so many scores, with rows of so many bytes, or of
# twice that where a causal mask hides so large a share, gain milliseconds: 2 to 3 seconds of compiling are made good
# within a thousand calls.
_MANY_SCORES = 2**29
_ROW_BYTES = 256
_SKIPPED_SHARE = 0.375


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
    """Where a call gains so much that compiling is soon made good."""
    row = problem.item_bytes * max(problem.head_dim, problem.value_head_dim)
    longest = 2 * _ROW_BYTES if skipped_share(problem) >= _SKIPPED_SHARE else _ROW_BYTES
    if problem.dtype == "float32" and problem.score_count >= _MANY_SCORES and row <= longest:
        return True, "the CUDA kernel is faster than MLX's unfused attention"
    return False, "MLX compiles it for seconds in every process: mlx-flash tune takes it where it is faster"


def block_size(problem: Problem, device: Device) -> int | None:
    """None: its blocks are those of the hardware."""
    return None


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """Nothing."""
    return 0


def run(call: Call, block_size: int | None) -> mx.array:
    """The kernel, by way of a compiled function; MLX's own attention inside of the user's transformations."""
    arrays = [x for x in (call.q, call.k, call.v, call.mask, call.sinks) if x is not None]
    return attention(call.problem, call.scale)(*arrays)


@lru_cache(maxsize=1024)
def attention(problem: Problem, scale: float) -> Callable[..., mx.array]:
    """The kernel as a function of q, k, v, then mask and sinks if any. It is compiled once for each stream, as what is
    compiled stays on that of its first call (streams that are equal have different hashes)."""
    kernels: list[tuple[mx.Stream, Callable[..., mx.array]]] = []

    def attend(*arrays: mx.array) -> mx.array:
        stream = mx.default_stream(mx.default_device())
        for own, kernel in kernels:
            if own == stream:
                return kernel(*arrays)
        kernel = _compiled(problem, scale)
        kernels.append((stream, kernel))
        return kernel(*arrays)

    return attend


class ByScale(dict[float, Callable[..., mx.array]]):
    """`attention` of a problem for each scale that is asked for, quicker than its cache."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def __missing__(self, scale: float) -> Callable[..., mx.array]:
        self[scale] = found = attention(self.problem, scale)
        return found


def _compiled(problem: Problem, scale: float) -> Callable[..., mx.array]:
    """The kernel on one stream.

    `mx.compile` makes it: what it replays costs a third of what describing a kernel costs in Python. It also tells
    whether the arrays are those of a transformation (vmap, which no custom kernel has, a gradient, a compilation):
    it then runs the Python function itself, each time, as it does else only for the first call.
    """
    # Of each thread, as compiled functions are: whether this one was replayed, and whether it ran in the last call.
    this = threading.local()

    def call(arrays: Sequence[mx.array]) -> Call:
        q, k, v, *rest = arrays
        mask = rest[0] if problem.has_array_mask else None
        return Call(problem, q, k, v, scale, mask, rest[-1] if problem.sinks else None)

    def kernel(*arrays: mx.array) -> mx.array:
        this.ran = True
        one = call(arrays)
        one.q, one.k, one.v = (x.astype(one.dtype) for x in (one.q, one.k, one.v))
        return cuda.attention(one)

    compiled = mx.compile(kernel)

    def attend(*arrays: mx.array) -> mx.array:
        for _ in range(1 if hasattr(this, "replayed") else 2):
            this.ran = False
            out: mx.array = compiled(*arrays)
            if not this.ran:
                this.replayed = True
                return out
        return stock.call(call(arrays))

    return attend
