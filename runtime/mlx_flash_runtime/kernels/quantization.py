"""Keys and values as a quantized cache of mlx-lm holds them."""

from __future__ import annotations

from typing import NamedTuple


class Bits(NamedTuple):
    """How keys and values are quantized, as `mx.quantize` has it."""

    bits: int
    group_size: int


# What our kernels read as it is, without dequantizing it in memory first.
KERNEL_BITS = (4, 8)
