"""A head dim without a fused kernel, padded with zeros to the next one that has it: zeros add
nothing to a product."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx

from ..ops.padding import next_fused, pad
from ..problem import Attend, Call, Device, Problem
from ..stock.fused import is_fused

DOES = "its head dim padded"

# Padding copies the keys, which a fused kernel for few queries would only read.
_QUERIES = 9
# From this many times as many bytes on, the scores that are not written pay for the copies.
_SAVING = 4


def lower(problem: Problem, device: Device, block_size: int | None) -> tuple[Problem, ...] | str:
    """The problem with both head dims at the next fused size."""
    if problem.query_length < _QUERIES:
        return "padding costs more than few queries save"
    if is_fused(problem, device)[0]:
        return "its head dim needs no padding"
    head_dim, value_head_dim = next_fused(problem, device)
    if not head_dim or not value_head_dim:
        return "there is no larger head dim with a fused kernel"
    if (head_dim, value_head_dim) == (problem.head_dim, problem.value_head_dim):
        return "its head dim is not what it lacks"
    return (replace(problem, head_dim=head_dim, value_head_dim=value_head_dim),)


def pays(problem: Problem, device: Device) -> bool:
    """For scores that are much larger than the padded arrays."""
    scores = 2 * problem.item_bytes * problem.score_count
    return scores >= _SAVING * extra_memory(problem, device, None)


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """q, k and v as padded, and the padded output."""
    head_dim, value_head_dim = next_fused(problem, device)
    queries = problem.query_heads * problem.query_length * (head_dim + value_head_dim)
    keys = problem.key_heads * problem.key_length * (head_dim + value_head_dim)
    return problem.item_bytes * problem.batch * (queries + keys)


def run(call: Call, calls: tuple[Problem, ...], attend: Attend) -> mx.array:
    """Pad, attend, cut the values' own dim out."""
    (padded,) = calls
    missing = padded.head_dim - call.problem.head_dim
    v = pad(call.v, 3, 0, padded.value_head_dim - call.problem.value_head_dim)
    q, k = pad(call.q, 3, 0, missing), pad(call.k, 3, 0, missing)
    out = attend(replace(call, problem=padded, q=q, k=k, v=v))
    return out[..., : call.problem.value_head_dim]
