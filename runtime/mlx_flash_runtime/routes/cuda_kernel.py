"""Our own kernel on CUDA: float32 and head dims above 128, for which MLX has none that is fused; 16-bit calls that are
short, which cost less to launch than through cuDNN, or new, which cuDNN would plan for first (see `trial`); and, by
products of warpgroups, windows and bool masks."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache

import mlx.core as mx

from .. import gradient, stock
from ..crossover import skipped_share
from ..fused import is_fused
from ..kernels.cuda import kernel as cuda
from ..kernels.cuda.tiles import tiles
from ..problem import Call, Device, Problem

NAME = "cuda_kernel"

_CAPABILITY = (8, 0)  # of the first GPUs with these tensor core instructions
_LARGEST_HEAD_DIM = 256
# Fewer queries would leave most of a product's rows empty; MLX has kernels for matrices times vectors.
_FEWEST_QUERIES = 9
# float32 rows in steps of this: where MLX's own products are not TF32 ones, ours must not be either.
_TF32_STEP = 8

# By measurement on an H200 (benchmarks/cuda_kernel.py). Visible scores times head dim, and keys, up to which a call is
# faster than through cuDNN, where MLX takes that.
_SHORT = 5 * 2**26
_SHORT_KEYS = 4096
# The same by products of warpgroups; the second is for heads with one consumer in a block of threads, of more than 64.
_SHORT_BY_WARPGROUPS = 5 * 2**30
_SHORT_BY_ONE = 2**31
# Against MLX's unfused attention, by the bytes of a row of queries: the most scores, under a mask that hides less than
# this share of them, or more. By warpgroups there is no such number.
_SKIPPED_SHARE = 0.375
_MOST_SCORES: dict[str, tuple[dict[int, float], dict[int, float]]] = {
    "float32": ({256: math.inf, 512: 2**28, 1024: 2**21}, {512: math.inf, 1024: 2**27}),
    "16 bits": ({512: 2**24}, {512: math.inf}),
}
_LARGEST_FUSED_HEAD_DIM = 128
# cuDNN plans for every shape that is new to the process, for 50 ms and more. While a shape has had fewer calls than a
# large model has layers, and so little work that all of them lose less than half of that, they run without.
_TRIAL_CALLS = 128
_TRIAL_PRODUCTS = 2**34
_TRIAL_PRODUCTS_BY_WARPGROUPS = 2**39
_TRIAL_SCORES_OF_MASKS = 2**30


def holds(problem: Problem, device: Device) -> tuple[bool, str]:
    """Calls that fit the tensor cores, outside of gradients."""
    if device.backend != "cuda":
        return False, "it is a kernel for CUDA"
    if device.capability < _CAPABILITY:
        return False, "this GPU has no tensor cores of the kind that the CUDA kernel uses"
    if not device.own_kernel:
        return False, "the CUDA kernel cannot be compiled here (mlx-flash doctor says why)"
    if problem.training:
        return False, "the CUDA kernel has no gradient"
    if problem.softcap is not None or problem.mask not in cuda.MASKS:
        return False, "the CUDA kernel has no such mask or softcap"
    if problem.mask == "window" and problem.query_length > problem.key_length:
        return False, "its window starts before the first key"
    if problem.query_length < _FEWEST_QUERIES:
        return False, "the CUDA kernel is one for many queries"
    in_steps = problem.head_dim % _TF32_STEP == problem.value_head_dim % _TF32_STEP == 0
    if problem.dtype == "float32" and not (device.tf32 and in_steps):
        return False, "the CUDA kernel's TF32 products are less exact than MLX's for it"
    if _largest_head_dim(problem) > _LARGEST_HEAD_DIM or tiles(problem, device.capability) is None:
        return False, "its head dim is too large for the CUDA kernel"
    return True, "one kernel on tensor cores, without scores in memory"


def pays(problem: Problem, device: Device) -> tuple[bool, str]:
    """Windows, bool masks and short calls, where MLX has a fused kernel; else up to a number of scores, as MLX's
    unfused attention multiplies faster where there is much to multiply."""
    by_warpgroups = _by_warpgroups(problem, device)
    if by_warpgroups and problem.mask == "window":
        return True, "the CUDA kernel skips what its window hides"
    if by_warpgroups and problem.mask == "bool":
        return True, "the CUDA kernel reads its mask as it is"
    if problem.item_bytes == 2 and _largest_head_dim(problem) <= _LARGEST_FUSED_HEAD_DIM:
        if (_is_simple(problem) or not is_fused(problem, device)[0]) and _is_short(problem, device):
            return True, "for a call as short as this the CUDA kernel is faster than cuDNN"
        return False, "MLX's fused kernel is faster for so much work"
    if by_warpgroups or problem.score_count <= _most_scores(problem):
        return True, "the CUDA kernel is faster than MLX's unfused attention"
    return False, "MLX's unfused attention is faster for so many scores"


def trial(problem: Problem, device: Device) -> int:
    """How many calls of a shape that the process has not seen should run on the kernel before cuDNN, which MLX takes
    for it, is worth its planning: 0 where it is at once."""
    if not is_fused(problem, device)[0] or not holds(problem, device)[0]:
        return 0
    by_warpgroups = _by_warpgroups(problem, device)
    if problem.has_array_mask:
        good = problem.structure is None and by_warpgroups and problem.score_count <= _TRIAL_SCORES_OF_MASKS
    else:
        good = _products(problem) <= (_TRIAL_PRODUCTS_BY_WARPGROUPS if by_warpgroups else _TRIAL_PRODUCTS)
    return _TRIAL_CALLS if good else 0


def _by_warpgroups(problem: Problem, device: Device) -> bool:
    cut = tiles(problem, device.capability)
    return cut is not None and cut.by_warpgroups


def _is_short(problem: Problem, device: Device) -> bool:
    cut = tiles(problem, device.capability)
    assert cut is not None
    if not cut.by_warpgroups:
        return _products(problem) <= _SHORT and problem.key_length <= _SHORT_KEYS
    alone = cut.groups == 1 and _largest_head_dim(problem) > 64
    return _products(problem) <= (_SHORT_BY_ONE if alone else _SHORT_BY_WARPGROUPS)


def _is_simple(problem: Problem) -> bool:
    """Whether calls of it go to the kernel the short way, see `patch`."""
    return not problem.has_array_mask and not problem.sinks


def _products(problem: Problem) -> float:
    visible = (1 - skipped_share(problem)) * problem.score_count
    return visible * _largest_head_dim(problem)


def _most_scores(problem: Problem) -> float:
    limits = _MOST_SCORES["float32" if problem.dtype == "float32" else "16 bits"]
    most = limits[problem.mask in ("causal", "window") and skipped_share(problem) >= _SKIPPED_SHARE]
    row = problem.item_bytes * _largest_head_dim(problem)
    return next(scores for bytes_of_row, scores in most.items() if row <= bytes_of_row)


def _largest_head_dim(problem: Problem) -> int:
    return max(problem.head_dim, problem.value_head_dim)


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
def attention(problem: Problem, scale: float, in_gradient: Callable[[], None] | None = None) -> Callable[..., mx.array]:
    """The kernel as a function of q, k, v, then mask and sinks if any; on the CPU, where it is the default, MLX's own
    attention. `in_gradient` is told when it meets a gradient.

    It is compiled once for each stream, as what is compiled stays on that of its first call (streams that are equal
    have different hashes).
    """
    kernels: list[tuple[mx.Stream, Callable[..., mx.array]]] = []

    def attend(*arrays: mx.array) -> mx.array:
        device = mx.default_device()
        stream = mx.default_stream(device)
        for own, kernel in kernels:
            if own == stream:
                return kernel(*arrays)
        if device.type == mx.DeviceType.cpu and mx.cuda.is_available():
            return stock.call(call_of(problem, scale, arrays))
        kernel = _compiled(problem, scale, in_gradient)
        kernels.append((stream, kernel))
        return kernel(*arrays)

    return attend


class ByScale(dict[float, Callable[..., mx.array]]):
    """`attention` of a problem for each scale that is asked for, quicker than its cache; for arrays of `dtype`, with
    values of `value_shape`. `over` is called when it is no more the way to go: it has met a gradient."""

    def __init__(self, problem: Problem, over: Callable[[ByScale], None] | None = None) -> None:
        self.problem = problem
        self.over = over
        self.dtype: mx.Dtype = getattr(mx, problem.dtype)
        self.value_shape = problem.batch, problem.key_heads, problem.key_length, problem.value_head_dim

    def __missing__(self, scale: float) -> Callable[..., mx.array]:
        over = self.over
        in_gradient = None if over is None else lambda: over(self)
        self[scale] = found = attention(self.problem, scale, in_gradient)
        return found


class Trial(ByScale):
    """The same for some calls only: it is over with the last of them as well."""

    def __init__(self, problem: Problem, calls: int, over: Callable[[ByScale], None]) -> None:
        super().__init__(problem, over)
        self._left = calls

    def __getitem__(self, scale: float) -> Callable[..., mx.array]:
        self._left -= 1
        if self._left == 0 and self.over is not None:
            self.over(self)
        return super().__getitem__(scale)


def call_of(problem: Problem, scale: float, arrays: Sequence[mx.array]) -> Call:
    """The call whose arrays are q, k, v, then mask and sinks if any."""
    q, k, v, *rest = arrays
    mask = rest[0] if problem.has_array_mask else None
    return Call(problem, q, k, v, scale, mask, rest[-1] if problem.sinks else None)


def _compiled(problem: Problem, scale: float, in_gradient: Callable[[], None] | None) -> Callable[..., mx.array]:
    """The kernel on one stream; MLX's own attention where it does not compile.

    `mx.compile` makes it: what it replays costs a third of what describing a kernel costs in Python. It also tells
    whether the arrays are those of a transformation (vmap, which no custom kernel has, a gradient, a compilation):
    it then runs the Python function itself, each time, as it does else only for the first call.
    """
    capability = Device.current().capability
    if not cuda.is_there(problem, capability):
        return lambda *arrays: stock.call(call_of(problem, scale, arrays))
    # Of each thread, as compiled functions are: whether this one was replayed, and whether it ran in the last call.
    this = threading.local()

    def kernel(*arrays: mx.array) -> mx.array:
        this.ran = True
        one = call_of(problem, scale, arrays)
        one.q, one.k, one.v = (x.astype(one.dtype) for x in (one.q, one.k, one.v))
        return cuda.attention(one, capability)

    compiled = mx.compile(kernel)

    def attend(*arrays: mx.array) -> mx.array:
        for _ in range(1 if hasattr(this, "replayed") else 2):
            this.ran = False
            out: mx.array = compiled(*arrays)
            if not this.ran:
                this.replayed = True
                return out
        if in_gradient is not None and gradient.is_traced():
            in_gradient()
        return stock.call(call_of(problem, scale, arrays))

    return attend
