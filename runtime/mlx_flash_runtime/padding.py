"""Zeros around an array."""

from __future__ import annotations

import mlx.core as mx

from .problem import mlx_release, mlx_version

# Before it `mx.pad` has no vmap; from then on `mx.concatenate` has one whose gradient is wrong in some releases.
_PAD_HAS_VMAP = mlx_release(mlx_version()) >= (0, 32)


def pad(x: mx.array, axis: int, before: int = 0, after: int = 0) -> mx.array:
    """`x` with that many zeros before and after it along one axis."""
    axis %= x.ndim
    if not before and not after:
        return x
    if _PAD_HAS_VMAP:
        return mx.pad(x, [(before, after) if place == axis else (0, 0) for place in range(x.ndim)])
    sizes = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in (before, after)]
    front, back = (mx.zeros(size, x.dtype) for size in sizes)
    return mx.concatenate([front, x, back], axis=axis)
