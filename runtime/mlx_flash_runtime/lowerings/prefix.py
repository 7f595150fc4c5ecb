"""A prefix that is seen both ways: one call for its queries, without a mask, and a causal one for
the others."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx

from ..problem import Attend, Call, Device, Problem
from ..problem.masks import Prefix

DOES = "its prefix and the rest taken apart"

# From here on the mask costs more than a second call does.
_TOKENS = 1024


def lower(problem: Problem, device: Device, block_size: int | None) -> tuple[Problem, ...] | str:
    """The problem of the prefix, then that of the rest, where there is one."""
    if not isinstance(problem.structure, Prefix):
        return "its mask is not known to be that of a prefix"
    length, rest = problem.structure.length, problem.query_length - problem.structure.length
    both_ways = replace(
        problem, query_length=length, key_length=length, mask="none", structure=None
    )
    causal = replace(problem, query_length=rest, mask="causal", structure=None)
    return (both_ways, causal) if rest else (both_ways,)


def pays(problem: Problem, device: Device) -> bool:
    """For a row that is long enough."""
    return problem.query_length >= _TOKENS


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """The outputs, before they are put together."""
    return problem.output_bytes


def run(call: Call, calls: tuple[Problem, ...], attend: Attend) -> mx.array:
    """Split, attend, concatenate."""
    prefix = calls[0].query_length
    q, *rest = mx.split(call.q, [prefix], axis=2) if len(calls) > 1 else [call.q]
    k, v = call.k[:, :, :prefix], call.v[:, :, :prefix]
    both_ways = attend(replace(call, problem=calls[0], q=q, k=k, v=v, mask=None))
    if not rest:
        return both_ways
    causal = attend(replace(call, problem=calls[1], q=rest[0], mask=None))
    return mx.concatenate([both_ways, causal], axis=2)
