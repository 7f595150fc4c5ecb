"""Where MLX runs its own fused attention kernels, as facts per backend and release.

Read in MLX's sources (`use_fallback` of each backend's scaled_dot_product_attention.cpp) for the
releases below.
"""

from __future__ import annotations

from typing import TypeVar

from ..problem import Device, Problem

_Fact = TypeVar("_Fact")

# The releases whose attention this package knows: first known, first unknown.
KNOWN = ((0, 31), (0, 33))

# Metal, more than 8 queries: head dims by first release, newest first. Queries and values have the
# same head dim.
_METAL_FULL = (
    ((0, 32, 1), frozenset({64, 72, 80, 96, 128})),
    ((0, 31), frozenset({64, 80, 128})),
)
# Metal, up to 8 queries: (head dim, value head dim).
_METAL_VECTOR = (
    ((0, 32), frozenset({(64, 64), (96, 96), (128, 128), (256, 256), (192, 128)})),
    ((0, 31), frozenset({(64, 64), (96, 96), (128, 128), (256, 256)})),
)
_METAL_VECTOR_QUERIES = 8
_METAL_VECTOR_ROWS = 32  # query length times query heads per key head

# Metal, more than 8 queries: head dims whose kernel runs with `force_fused=True` alone.
_METAL_FORCED = frozenset({192, 256})
_FORCE_FUSED = (0, 32, 2)  # the first release with that argument
_METAL_BACKWARD = (0, 32, 4)  # the first release with fused gradients on Metal

_CUDNN_CAPABILITY = (8, 0)  # of the first GPUs on which MLX attends through cuDNN
_CUDA_HEAD_DIM = 128  # cuDNN: at most this, in steps of 8
CUDA_BACKWARD_ROWS = 128  # the fused backward pass takes query lengths in steps of this
# CUDA, MLX's own kernel for few queries: head dims, and the most queries.
_CUDA_VECTOR = frozenset({64, 96, 128})
_CUDA_VECTOR_QUERIES = 3


def is_known(release: tuple[int, ...]) -> bool:
    """Whether `release` lies in the range that this package was checked against."""
    first, end = KNOWN
    return first <= release[:2] < end


def is_fused(problem: Problem, device: Device) -> tuple[bool, str]:
    """Whether MLX has a fused kernel for `problem`, backward too if it is `training`, and the
    reason in a phrase."""
    if device.backend == "cpu":
        return False, "MLX has no fused kernel on the CPU"
    if problem.softcap is not None:
        return False, "MLX has no fused kernel for softcapped scores"
    on_backend = _missing_on_metal if device.backend == "metal" else _missing_on_cuda
    missing = on_backend(problem, device)
    if missing is None and problem.training:
        missing = _missing_in_training(problem, device)
    if missing:
        return False, f"MLX has no fused kernel for {missing}"
    return True, "MLX has a fused kernel"


def is_fused_if_forced(problem: Problem, device: Device) -> bool:
    """Whether MLX has a fused kernel for `problem` that it runs with `force_fused=True` alone: on
    Metal it takes the unfused way for large head dims, as the faster one."""
    return (
        device.backend == "metal"
        and device.mlx >= _FORCE_FUSED
        and not problem.training
        and problem.softcap is None
        and problem.query_length > _METAL_VECTOR_QUERIES
        and problem.head_dim == problem.value_head_dim
        and problem.head_dim in _METAL_FORCED
        and not (problem.mask == "causal" and problem.query_length > problem.key_length)
    )


def fused_head_dims(device: Device) -> tuple[int, ...]:
    """The head dims of MLX's fused kernels for many queries, smallest first."""
    if device.backend == "cuda":
        return tuple(range(8, _CUDA_HEAD_DIM + 1, 8)) if _has_cudnn(device) else ()
    return tuple(sorted(_newest(_METAL_FULL, device.mlx))) if device.backend == "metal" else ()


def _missing_on_metal(problem: Problem, device: Device) -> str | None:
    if problem.query_length > _METAL_VECTOR_QUERIES:
        if problem.head_dim != problem.value_head_dim:
            return "values of another head dim"
        if problem.head_dim not in _newest(_METAL_FULL, device.mlx):
            return "this head dim"
        if problem.mask == "causal" and problem.query_length > problem.key_length:
            return "a causal mask over more queries than keys"
        return None
    if (problem.head_dim, problem.value_head_dim) not in _newest(_METAL_VECTOR, device.mlx):
        return "this head dim with few queries"
    if problem.query_length > problem.key_length:
        return "more queries than keys"
    if problem.query_length * problem.query_heads // problem.key_heads > _METAL_VECTOR_ROWS:
        return "this many query heads per key head with few queries"
    return None


def _missing_on_cuda(problem: Problem, device: Device) -> str | None:
    same_head_dim = problem.head_dim == problem.value_head_dim
    if (
        same_head_dim
        and problem.head_dim in _CUDA_VECTOR
        and problem.query_length <= _CUDA_VECTOR_QUERIES
        and not problem.has_array_mask
    ):
        return None
    if not _has_cudnn(device):
        return "more than few queries without cuDNN"
    if problem.query_length == 1:
        # cuDNN decodes only from keys that are slices of a cache, which the shapes do not tell.
        if problem.has_array_mask:
            return "one query with an array mask"
        return "one query of this head dim"
    if problem.mask == "causal" and problem.query_length > problem.key_length:
        return "a causal mask over more queries than keys"
    for size in (problem.head_dim, problem.value_head_dim):
        if size % 8 or size > _CUDA_HEAD_DIM:
            return "this head dim"
    if problem.dtype not in ("float16", "bfloat16"):
        return problem.dtype
    return None


def _has_cudnn(device: Device) -> bool:
    return device.cudnn and device.capability >= _CUDNN_CAPABILITY


def _missing_in_training(problem: Problem, device: Device) -> str | None:
    if device.backend == "metal":
        if device.mlx < _METAL_BACKWARD:
            return "a gradient"
        return "a gradient with an array mask" if problem.has_array_mask or problem.sinks else None
    if problem.query_length % CUDA_BACKWARD_ROWS:
        return "a gradient at this length"
    return "the gradient of sinks" if problem.sinks else None


def _newest(
    table: tuple[tuple[tuple[int, ...], frozenset[_Fact]], ...], release: tuple[int, ...]
) -> frozenset[_Fact]:
    """What a release has, by a table whose newest row comes first; for one older than all rows,
    what the oldest says."""
    for first, facts in table:
        if release >= first:
            return facts
    return table[-1][1]
