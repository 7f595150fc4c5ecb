"""MLX's own attention function, reached past the patch."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

Attention = Callable[..., mx.array]

# The function that the patch replaced, or would.
attention: Attention = mx.fast.scaled_dot_product_attention
