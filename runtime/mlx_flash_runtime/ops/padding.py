"""Zeros around an array, and head dims that MLX has fused kernels for."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import mlx.core as mx

from ..problem import Device, Problem
from ..stock.fused import fused_head_dims, is_fused

# On Metal, besides those of calls of any kind: those of gradients, from 0.32.4 on.
_LARGE_HEAD_DIMS = (192, 256)


def pad(x: mx.array, axis: int, before: int = 0, after: int = 0) -> mx.array:
    """`x` with that many zeros before and after it along one axis.

    That is `mx.pad`, which has no vmap in MLX 0.31, and one whose gradient is an error in 0.32.2.
    """
    parts = [x]
    if before:
        parts.insert(0, _zeros_like(x, axis, before))
    if after:
        parts.append(_zeros_like(x, axis, after))
    return mx.concatenate(parts, axis=axis) if len(parts) > 1 else x


def _zeros_like(x: mx.array, axis: int, size: int) -> mx.array:
    """Zeros of the shape of `x`, but for `size` of them along one axis."""
    shape = list(x.shape)
    shape[axis] = size
    return mx.zeros(shape, x.dtype)


@lru_cache(maxsize=256)  # planning asks several times for each problem
def next_fused(problem: Problem, device: Device) -> tuple[int, int]:
    """The smallest head dims of queries and of values, none smaller than the problem's, that MLX
    has a fused kernel for; 0 where there is none. On Metal the two have to be equal."""
    sizes = fused_head_dims(device)
    if device.backend != "metal":
        return _next(sizes, problem.head_dim), _next(sizes, problem.value_head_dim)
    least = max(problem.head_dim, problem.value_head_dim)
    large = _LARGE_HEAD_DIMS if problem.training else ()
    for size in (*sizes, *large):
        padded = replace(problem, head_dim=size, value_head_dim=size)
        if size >= least and is_fused(padded, device)[0]:
            return size, size
    return 0, 0


def _next(sizes: tuple[int, ...], size: int) -> int:
    """The first of ascending `sizes` that is not below `size`, or 0."""
    for one in sizes:
        if one >= size:
            return one
    return 0
