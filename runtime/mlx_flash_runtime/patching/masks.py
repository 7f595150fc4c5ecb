"""The masks that MLX and mlx-lm, or copies of their functions, make, remembering what they say."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import mlx.core as mx

from ..problem.masks import Causal, Window, remember


def remembering(
    original: Callable[..., mx.array], is_same: Callable[[], bool]
) -> Callable[..., mx.array]:
    """mlx-lm's `create_causal_mask`, remembering what its masks say; those with padding are arrays
    like any other."""

    @wraps(original)
    def create_causal_mask(
        N: int, offset: int = 0, window_size: int | None = None, *args: Any, **padding: Any
    ) -> mx.array:
        mask = original(N, offset, window_size, *args, **padding)
        padded = any(x is not None for x in (*args, *padding.values()))
        numbers = type(N) is type(offset) is int and (
            window_size is None or type(window_size) is int
        )
        if (
            padded
            or not numbers
            or mask.shape != (N, offset + N)
            or (window_size is not None and window_size < 1)
            or not is_same()
        ):
            return mask
        return remember(mask, Causal() if window_size is None else Window(window_size))

    return create_causal_mask


def remembering_causal(
    original: Callable[..., mx.array], is_same: Callable[[], bool]
) -> Callable[..., mx.array]:
    """MLX's and older mlx-lm's `create_additive_causal_mask`, remembering what its masks say."""

    @wraps(original)
    def create_additive_causal_mask(N: int, *args: Any, **rest: Any) -> mx.array:
        mask = original(N, *args, **rest)
        is_one = mask.ndim == 2 and mask.shape[0] == N <= mask.shape[1]
        if is_one and mx.issubdtype(mask.dtype, mx.floating) and is_same():
            return remember(mask, Causal())
        return mask

    return create_additive_causal_mask
