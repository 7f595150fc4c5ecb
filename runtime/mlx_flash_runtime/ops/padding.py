"""Zeros around an array."""

from __future__ import annotations

import mlx.core as mx


def pad(x: mx.array, axis: int, before: int = 0, after: int = 0) -> mx.array:
    """`x` with that many zeros before and after it along one axis.

    That is `mx.pad`, which has no vmap in MLX 0.31, and one whose gradient is an error in 0.32.2.
    """
    axis %= x.ndim

    def zeros(size: int) -> list[mx.array]:
        return [mx.zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)] if size else []

    parts = [*zeros(before), x, *zeros(after)]
    return x if len(parts) == 1 else mx.concatenate(parts, axis=axis)
