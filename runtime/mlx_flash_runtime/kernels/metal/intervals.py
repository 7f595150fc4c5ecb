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
            first, _ = _documents(lengths, position)
    mx.eval(first, last)
    return first, last


@lru_cache(maxsize=64)
def queries_of_keys(problem: Problem) -> tuple[mx.array, mx.array]:
    """The first and the last query that see each key, int32 `[S]`; the last is -1 for a key that
    none sees."""
    key = mx.arange(problem.key_length)
    offset = problem.key_length - problem.query_length
    first, last = key, mx.full(key.shape, problem.key_length - 1, mx.int32)
    match problem.visible:
        case Window(size):
            last = mx.minimum(key + size - 1, last)
        case Prefix(length):
            first = mx.where(key < length, 0, key)
        case Segments(lengths):
            _, end = _documents(lengths, key)
            last = end - 1
    # Positions count along the keys: the first query stands at `offset`.
    first, last = mx.maximum(first - offset, 0), mx.maximum(last - offset, -1)
    mx.eval(first, last)
    return first, last


def _documents(lengths: tuple[int, ...], position: mx.array) -> tuple[mx.array, mx.array]:
    """Where the document of each position starts, and where the one after it does."""
    ends = mx.array([*accumulate(lengths)], mx.int32)
    # It is the number of those that end before the position, or there.
    document = mx.sum(position[:, None] >= ends[:-1], axis=-1)
    return (ends - mx.array(lengths, mx.int32))[document], ends[document]
