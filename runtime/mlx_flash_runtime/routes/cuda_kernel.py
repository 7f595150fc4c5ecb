"""Our own kernel on CUDA: float32 and head dims above 128, for which MLX has none that is fused;
16-bit calls that are short, which cost less to launch than through cuDNN, or new, which cuDNN
would plan for first (see `first_calls`); by products of warpgroups, windows and bool masks; and
training, where MLX has no fused gradient or a slower one. And one for few queries on many keys, as
decoding has them, in 16 bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import mlx.core as mx

from ..kernels.cuda import arguments, few_queries, gradient
from ..kernels.cuda.attention_tiles import tiles_of
from ..kernels.cuda.hardware import has_warpgroups
from ..kernels.cuda.launcher import Launcher
from ..kernels.cuda.training import Training
from ..kernels.quantization import Bits
from ..problem import Device, Launch, Problem
from ..stock.fused import is_fused
from .route import Route

_CAPABILITY = (8, 0)  # of the first GPUs with these tensor core instructions
_LARGEST_HEAD_DIM = 256
# Fewer queries of one head would leave most of a product's rows empty.
_FEWEST_QUERIES = 9
# float32 rows in steps of this: where MLX's own products are not TF32 ones, ours must not be
# either.
_TF32_STEP = 8

# By measurement on an H200 (benchmarks/cuda_kernel.py). Visible scores times head dim, and keys,
# up to which a call is faster than through cuDNN, where MLX takes that.
_SHORT = 5 * 2**26
_SHORT_KEYS = 4096
# The same by products of warpgroups; the second is for heads with one consumer in a block of
# threads, of more than 64.
_SHORT_BY_WARPGROUPS = 5 * 2**30
_SHORT_BY_ONE = 2**31
# Against MLX's unfused attention, by the bytes of a row of queries: the most scores, under a mask
# that hides less than this share of them, or more. By warpgroups there is no such number.
_SKIPPED_SHARE = 0.375
_MOST_SCORES: dict[str, tuple[dict[int, float], dict[int, float]]] = {
    "float32": ({256: math.inf, 512: 2**28, 1024: 2**21}, {512: math.inf, 1024: 2**27}),
    "16 bits": ({512: 2**24}, {512: math.inf}),
}
_LARGEST_FUSED_HEAD_DIM = 128
# In training, what was measured (benchmarks/cuda_training.py): from so many scores and such a head
# dim on, up to another in float32; and from many more scores on in the place of cuDNN's gradient.
_FEWEST_TRAINED_SCORES = 2**20
_SMALLEST_TRAINED_HEAD_DIM = 64
_LARGEST_TRAINED_TF32_HEAD_DIM = 128
_FUSED_TRAINED_SCORES = 2**28
# Few queries, where MLX has a fused kernel (benchmarks/few_queries.py): the most queries of the one
# that is MLX's own, and where ours reads faster than that: bytes of keys and values (of few bytes
# it is faster, too, by less than it takes to plan and to describe each token's call; with sinks
# MLX's takes several times as long), and rows of key heads, of which each has a multiprocessor.
_MOST_QUERIES_OF_MLX = 4
_FEWEST_BYTES_FOR_FEW = 2**26
_FEWEST_BYTES_WITH_SINKS = 2**23
_MOST_BLOCKS_FOR_FEW = 132
# cuDNN plans for every shape that is new to the process, for 50 ms and more. While a shape has had
# fewer calls than a large model has layers, and so little work that all of them lose less than
# half of that, they run without.
_TRIAL_CALLS = 128
_TRIAL_PRODUCTS = 2**34
_TRIAL_PRODUCTS_BY_WARPGROUPS = 2**39
_TRIAL_SCORES_OF_MASKS = 2**30
_WHILE_CUDNN_WOULD_PLAN = (
    "cuDNN would first plan for this shape, for longer than the calls of one prompt take without it"
)


class CudaKernel(Route):
    """Kernels on tensor cores, forward and backward."""

    name = "cuda_kernel"
    finds_gradients = True
    judges_the_rest = True

    def holds(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Calls that fit the tensor cores."""
        if device.backend != "cuda":
            return False, "it is a kernel for CUDA"
        if device.capability < _CAPABILITY:
            return False, "this GPU has no tensor cores of the kind that the CUDA kernel uses"
        if not device.own_kernel:
            return False, "the CUDA kernel cannot be compiled here (mlx-flash doctor says why)"
        if few_queries.is_for(problem):
            return True, "one kernel for few queries, which reads keys and values once"
        if problem.softcap is not None or problem.mask not in arguments.MASKS:
            return False, "the CUDA kernel has no such mask or softcap"
        if problem.mask == "window" and problem.query_length > problem.key_length:
            return False, "its window starts before the first key"
        if problem.query_length < _FEWEST_QUERIES:
            return False, few_queries.why_not(problem)
        in_steps = problem.head_dim % _TF32_STEP == problem.value_head_dim % _TF32_STEP == 0
        if problem.dtype == "float32" and not (device.tf32 and in_steps):
            return False, "the CUDA kernel's TF32 products are less exact than MLX's for it"
        if (
            _largest_head_dim(problem) > _LARGEST_HEAD_DIM
            or tiles_of(problem, device.capability) is None
            or (problem.training and not gradient.fits(problem, device.capability))
        ):
            return False, "its head dim is too large for the CUDA kernel"
        return True, "one kernel on tensor cores, without scores in memory"

    def pays(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """In training where MLX has no fused gradient. Else windows, bool masks and short calls,
        where MLX has a fused kernel, and up to a number of scores where it has none, as its unfused
        attention multiplies faster where there is much to multiply."""
        if few_queries.is_for(problem):
            return _pays_for_few(problem, device)
        by_warpgroups = _by_warpgroups(problem, device)
        if problem.training:
            return _pays_in_training(problem, device)
        if by_warpgroups and problem.mask == "window":
            return True, "the CUDA kernel skips what its window hides"
        if by_warpgroups and problem.mask == "bool":
            return True, "the CUDA kernel reads its mask as it is"
        if problem.item_bytes == 2 and _largest_head_dim(problem) <= _LARGEST_FUSED_HEAD_DIM:
            if (_is_simple(problem) or not is_fused(problem, device)[0]) and _is_short(
                problem, device
            ):
                return True, "for a call as short as this the CUDA kernel is faster than cuDNN"
            return False, "MLX's fused kernel is faster for so much work"
        if by_warpgroups or problem.score_count <= _most_scores(problem):
            return True, "the CUDA kernel is faster than MLX's unfused attention"
        return False, "MLX's unfused attention is faster for so many scores"

    def first_calls(self, problem: Problem, device: Device) -> tuple[int, str]:
        """So many as a large model has layers: cuDNN, which MLX takes for the shape, first plans
        for it, for 50 ms and more. None for shapes with so much work that they lose more than half
        of that by running without."""
        if not is_fused(problem, device)[0] or not self.holds(problem, device)[0]:
            return 0, ""
        if few_queries.is_for(problem):  # beside cuDNN it pays, and MLX's own kernel needs no plan
            return 0, ""
        by_warpgroups = _by_warpgroups(problem, device)
        if problem.has_array_mask:
            known = problem.structure is not None
            good = by_warpgroups and not known and problem.score_count <= _TRIAL_SCORES_OF_MASKS
        else:
            most = _TRIAL_PRODUCTS_BY_WARPGROUPS if by_warpgroups else _TRIAL_PRODUCTS
            good = _products(problem) <= most
        return (_TRIAL_CALLS if good else 0), _WHILE_CUDNN_WOULD_PLAN

    def takes_quantized(self, problem: Problem, device: Device) -> bool:
        """Whether there is a kernel that reads keys and values as `mx.quantize` packs them."""
        return few_queries.is_for(problem) and self.holds(problem, device)[0]

    def pays_quantized(self, problem: Problem, bits: Bits, device: Device) -> bool:
        """Always: the other way is to write keys and values dequantized, and to read those."""
        return True

    def reads_mask(self, problem: Problem) -> bool:
        """Whether the mask is an array for the kernel, too."""
        return arguments.reads_mask(problem)

    def quantized(
        self,
        problem: Problem,
        bits: Bits,
        device: Device,
        scale: float,
        arrays: Sequence[mx.array],
    ) -> mx.array | None:
        """Attention over quantized keys and values, see `TakesQuantized`."""
        return _quantized_launcher(problem, device.capability, bits).replayed(scale, arrays)

    def launch(
        self,
        problem: Problem,
        device: Device,
        block_size: int | None,
        in_gradient: Callable[[], Launch] | None = None,
    ) -> Launch:
        """The kernel, without a `Call`: here calls are short enough for that to show; in training
        with its gradient. MLX's own attention inside of other transformations of the user's."""
        if problem.training:
            return Training(problem, device.capability).run
        return Launcher(problem, device.capability, in_gradient).run


@lru_cache(maxsize=1024)  # decoding has a new problem with each token
def _quantized_launcher(problem: Problem, capability: tuple[int, int], bits: Bits) -> Launcher:
    return Launcher(problem, capability, bits=bits)


def _pays_for_few(problem: Problem, device: Device) -> tuple[bool, str]:
    """Where MLX has no fused kernel; where that is cuDNN's, which plans anew for each number of
    keys; and for many bytes of keys and values. Where MLX has a fused kernel, measured on Hopper
    alone."""
    if not is_fused(problem, device)[0]:
        return True, "the CUDA kernel reads keys and values once, and MLX has none that is fused"
    if not has_warpgroups(device.capability):
        return False, "the CUDA kernel for few queries is not known to be faster here"
    if problem.query_length > _MOST_QUERIES_OF_MLX:
        return True, "the CUDA kernel splits the keys, and needs no plan for their number"
    p = problem
    numbers = p.batch * p.key_heads * p.key_length * (p.head_dim + p.value_head_dim)
    fewest = _FEWEST_BYTES_WITH_SINKS if p.sinks else _FEWEST_BYTES_FOR_FEW
    if p.item_bytes * numbers >= fewest and p.batch * p.key_heads <= _MOST_BLOCKS_FOR_FEW:
        return True, "the CUDA kernel reads so many keys and values faster"
    return False, "MLX's fused kernel for few queries is about as fast"


def _pays_in_training(problem: Problem, device: Device) -> tuple[bool, str]:
    """Where MLX has no fused gradient, or one that reads a window as an array; and for a causal
    mask over so many keys that cuDNN's is slower. Measured on Hopper alone."""
    largest = _largest_head_dim(problem)
    few = problem.score_count < _FEWEST_TRAINED_SCORES or largest < _SMALLEST_TRAINED_HEAD_DIM
    if few or not has_warpgroups(device.capability):
        return False, "the CUDA kernel's gradient is not known to be faster here"
    if problem.has_array_mask and problem.mask != "window":
        return False, "MLX's gradient reads the array of a mask faster"
    if problem.dtype == "float32":
        if largest <= _LARGEST_TRAINED_TF32_HEAD_DIM:
            return True, "the CUDA kernel's gradient is faster than MLX's unfused one"
        return False, "MLX's unfused gradient is faster for so large a head dim in float32"
    if not _by_warpgroups(problem, device):
        return False, "MLX's gradient is faster for this head dim"
    if problem.mask == "window":
        return True, "the CUDA kernel skips what its window hides"
    if not is_fused(problem, device)[0]:
        return True, "the CUDA kernel's gradient is faster than MLX's without a fused one"
    if problem.mask == "causal" and problem.score_count >= _FUSED_TRAINED_SCORES:
        return True, "the CUDA kernel's gradient is faster than cuDNN's for so many scores"
    return False, "MLX's fused gradient is faster"


def _by_warpgroups(problem: Problem, device: Device) -> bool:
    tiles = tiles_of(problem, device.capability)
    return tiles is not None and tiles.by_warpgroups


def _is_short(problem: Problem, device: Device) -> bool:
    tiles = tiles_of(problem, device.capability)
    assert tiles is not None
    if not tiles.by_warpgroups:
        return _products(problem) <= _SHORT and problem.key_length <= _SHORT_KEYS
    alone = tiles.consumers == 1 and _largest_head_dim(problem) > 64
    return _products(problem) <= (_SHORT_BY_ONE if alone else _SHORT_BY_WARPGROUPS)


def _is_simple(problem: Problem) -> bool:
    """Whether calls of it go to the kernel the short way, see `patch`."""
    return not problem.has_array_mask and not problem.sinks


def _products(problem: Problem) -> float:
    visible = (1 - problem.skipped_share()) * problem.score_count
    return visible * _largest_head_dim(problem)


def _most_scores(problem: Problem) -> float:
    limits = _MOST_SCORES["float32" if problem.dtype == "float32" else "16 bits"]
    most = limits[
        problem.mask in ("causal", "window") and problem.skipped_share() >= _SKIPPED_SHARE
    ]
    row = problem.item_bytes * _largest_head_dim(problem)
    return next(scores for bytes_of_row, scores in most.items() if row <= bytes_of_row)


def _largest_head_dim(problem: Problem) -> int:
    return max(problem.head_dim, problem.value_head_dim)


cuda_kernel = CudaKernel()
