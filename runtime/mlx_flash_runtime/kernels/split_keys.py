"""Few queries on many keys, as the kernels for GPUs cut them: all queries of a key head are rows of
one product, and the keys are split into parts, whose results are put together at the end."""

from __future__ import annotations

from ..problem import Problem
from .rounding import ceil_div


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
    return max(1, min(wanted, ceil_div(keys, fewest_keys)))
