"""Few queries on many keys, as the kernels for GPUs cut them: all queries of a key head are rows of
one product, and the keys are split into parts, whose results are put together at the end."""

from __future__ import annotations

from typing import NamedTuple

from ..problem import Problem


class Bits(NamedTuple):
    """How keys and values are quantized, as `mx.quantize` has it."""

    bits: int
    group_size: int


# That our kernels read as they are.
KERNEL_BITS = (4, 8)


def rows_of(problem: Problem) -> int:
    """The queries of all query heads that share a key head."""
    return problem.query_heads // problem.key_heads * problem.query_length


def seen_keys(problem: Problem) -> int:
    """The keys that any query sees: a window hides those before."""
    if problem.window is None:
        return problem.key_length
    return min(problem.key_length, problem.window + problem.query_length - 1)


def splits_of(keys: int, wanted: int, fewest_keys: int) -> int:
    """Into how many splits the keys are cut: so many as are `wanted` to fill a GPU, but a split of
    fewer keys would cost more to put together than it saves."""
    return max(1, min(wanted, -(-keys // fewest_keys)))


def rounded_up(number: int, step: int) -> int:
    """The least multiple of `step` that is not below `number`."""
    return -(-number // step) * step
