"""Zeros around an array."""

from __future__ import annotations

import mlx.core as mx


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
