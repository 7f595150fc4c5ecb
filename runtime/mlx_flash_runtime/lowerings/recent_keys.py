"""A sliding window over a long cache, for few queries (decoding, above all): the keys before the
first query's window are left out. They are the front of the cache, so nothing is copied, and a
single query sees all that remain."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx

from ..problem import Attend, Call, Device, Problem
from ..problem.masks import Window, between

DOES = "its keys cut down to its window"

# More queries than these fill chunks of a window, which are for `window` to fold.
_QUERIES = 127
# From this many times as many keys on.
_SAVING = 2


def lower(problem: Problem, device: Device, block_size: int | None) -> tuple[Problem, ...] | str:
    """The problem on the last keys, with a mask if there is more than one query."""
    if not isinstance(problem.structure, Window):
        return "its mask is not known to be a window"
    keys = _keys(problem)
    if problem.query_length > _QUERIES or keys >= problem.key_length:
        return "its windows take more than a cache's last keys"
    recent = replace(problem, key_length=keys, mask="none", mask_shape=(), structure=None)
    if problem.query_length > 1:
        recent = replace(recent, mask="bool", mask_shape=(problem.query_length, keys))
    return (recent,)


def pays(problem: Problem, device: Device) -> bool:
    """For many times as many keys."""
    return problem.key_length >= _SAVING * _keys(problem)


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """The mask, where there is more than one query."""
    return problem.query_length * _keys(problem) if problem.query_length > 1 else 0


def run(call: Call, calls: tuple[Problem, ...], attend: Attend) -> mx.array:
    """Cut off the front, attend."""
    (recent,) = calls
    assert call.problem.structure is not None
    start, stop = call.problem.key_length - recent.key_length, call.problem.key_length
    mask = None
    if recent.has_array_mask:
        queries = range(stop - call.problem.query_length, stop)
        mask = between(call.problem.structure, queries, range(start, stop))
    k, v = call.k[:, :, start:], call.v[:, :, start:]
    return attend(replace(call, problem=recent, k=k, v=v, mask=mask))


def _keys(problem: Problem) -> int:
    """Those of the windows of all queries."""
    assert problem.window is not None
    return problem.query_length + problem.window - 1
