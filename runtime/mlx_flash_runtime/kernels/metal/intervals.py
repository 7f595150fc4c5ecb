"""Masks that are known by what they say, as kernels are told of them: of each row the first and the
last column that it sees. Both grow from row to row."""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate

import mlx.core as mx

from ...problem import Problem
from ...problem.masks import Prefix, Segments, Window


@lru_cache(maxsize=64)
def keys_of_queries(problem: Problem) -> tuple[mx.array, mx.array]:
    """The first and the last key that each query sees, int32 `[L]`."""
    position = mx.arange(problem.key_length - problem.query_length, problem.key_length)
    first, last = mx.zeros_like(position), position
    match problem.visible:
        case Window(size):
            first = mx.maximum(position - size + 1, 0)
        case Prefix(length):
            last = mx.maximum(position, length - 1)
        case Segments(lengths):
            starts = mx.array([0, *accumulate(lengths[:-1])], mx.int32)
            # A position's document is the last of those that start before it, or there.
            document = mx.sum(position[:, None] >= starts, axis=-1) - 1
            first = starts[document]
    mx.eval(first, last)
    return first, last


@lru_cache(maxsize=64)
def queries_of_keys(problem: Problem) -> tuple[mx.array, mx.array]:
    """The first and the last query that see each key of a causal mask or a window, int32 `[S]`; the
    last is -1 for a key that none sees."""
    own = mx.arange(problem.key_length) - (problem.key_length - problem.query_length)
    last = mx.full(own.shape, problem.query_length - 1, mx.int32)
    if problem.window is not None:
        last = mx.minimum(own + problem.window - 1, last)
    first, last = mx.maximum(own, 0), mx.maximum(last, -1)
    mx.eval(first, last)
    return first, last
