"""What MLX itself does: its attention function, reached past the patch; which calls it fuses;
whether a gradient is being traced."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from ..problem import Call
from .wrappers import mlx_function_in

Attention = Callable[..., mx.array]

# The function that the patch replaces: MLX's own, also where another package was there before.
attention: Attention = mlx_function_in(mx.fast.scaled_dot_product_attention)


def call(call: Call, **options: bool) -> mx.array:
    """MLX's own function with the arguments of `call`."""
    mask = "causal" if call.problem.mask == "causal" else call.mask
    return attention(
        call.q, call.k, call.v, scale=call.scale, mask=mask, sinks=call.sinks, **options
    )
