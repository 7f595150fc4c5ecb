"""Whole numbers of blocks and tiles, as kernels cut a problem up."""

from __future__ import annotations


def ceil_div(number: int, size: int) -> int:
    """How many pieces of `size` cover `number`: `number / size`, rounded up."""
    return -(-number // size)


def rounded_up(number: int, step: int) -> int:
    """The least multiple of `step` that is not below `number`."""
    return ceil_div(number, step) * step
