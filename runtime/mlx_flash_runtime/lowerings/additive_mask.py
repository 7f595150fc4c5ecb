"""A bool mask on CUDA, as the numbers that it adds.

MLX makes a bool mask additive after spreading it over batch and heads; made additive before, it
keeps its own shape and is only read as if it were spread. A hidden key gets the most negative
number rather than minus infinity, so that a query that sees no key (left padding) has a finite
answer, as in MLX's unfused attention, rather than NaN.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import mlx.core as mx

from ..problem import Attend, Call, Device, Problem

DOES = "its mask added in its own shape"

# From this many bytes on, what MLX would write is worth the operation (H200: below it, launching
# costs as much).
_BYTES = 2**25


def lower(problem: Problem, device: Device, block_size: int | None) -> tuple[Problem, ...] | str:
    """The problem with an additive mask."""
    if device.backend != "cuda":
        return "MLX takes bool masks as they are"
    if not problem.has_array_mask or problem.mask == "additive":
        return "it has no bool mask"
    return (replace(problem, mask="additive", mask_shape=_shape(problem), structure=None),)


def pays(problem: Problem, device: Device) -> bool:
    """Where MLX would write many times as much."""
    spread = problem.item_bytes * problem.score_count
    return spread >= _BYTES and spread >= 2 * extra_memory(problem, device, None)


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """The mask."""
    return problem.item_bytes * prod(_shape(problem))


def run(call: Call, calls: tuple[Problem, ...], attend: Attend) -> mx.array:
    """Zero where a key is seen."""
    assert call.mask is not None
    return attend(
        replace(call, problem=calls[0], mask=_added(call.mask, _shape(call.problem), call.dtype))
    )


# Nothing is kept for the next layer: a mask can be changed in place, which does not show from
# outside.
def _added(mask: mx.array, shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
    full = mx.broadcast_to(mask, shape)
    return mx.where(full, mx.array(0, dtype), mx.array(mx.finfo(dtype).min, dtype))


def _shape(problem: Problem) -> tuple[int, ...]:
    """The mask's own, but with all keys: the kernel reads rows."""
    shape = (1,) * (4 - len(problem.mask_shape)) + problem.mask_shape
    return (*shape[:-1], problem.key_length)
