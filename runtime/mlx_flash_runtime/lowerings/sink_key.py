"""Sinks in a gradient on Metal, as one more key: MLX's fused backward pass has none.

A sink is a score that takes its share of a query's weight and has no value. So it is the score of a
key before all others, which every query sees under a causal mask too, with a value of zeros. Its
score comes from head dims that are zero in all other keys: there the query holds the sink of its
head.
"""

from __future__ import annotations

from dataclasses import replace
from math import frexp

import mlx.core as mx

from ..ops.padding import next_fused, pad
from ..problem import Attend, Call, Device, Problem

DOES = "its sinks as one more key"

# So many numbers of 16 bits, each what the ones before it leave over, are one of float32.
_PARTS = 3
# Powers of two that float16 has without losing bits.
_LEAST_EXPONENT, _LARGEST_EXPONENT = -14, 15
# A sink of minus infinity is none: so is one that is far below all scores, and times zero it is
# zero, not NaN.
_NO_SINK = -(2.0**15)


def lower(problem: Problem, device: Device, block_size: int | None) -> tuple[Problem, ...] | str:
    """The problem with one more key and no sinks, at the next fused head dim that has room."""
    if not (problem.sinks and problem.training and device.backend == "metal"):
        return "no gradient of sinks is missing"
    if problem.has_array_mask:
        return "its mask is an array, which has no place for one more key"
    if problem.mask == "causal" and problem.query_length > problem.key_length:
        return "its first queries see no key"
    with_key = replace(
        problem, key_length=problem.key_length + 1, head_dim=problem.head_dim + _PARTS, sinks=False
    )
    head_dim, value_head_dim = next_fused(with_key, device)
    if not head_dim:
        return "there is no larger head dim with a fused kernel"
    return (replace(with_key, head_dim=head_dim, value_head_dim=value_head_dim),)


def pays(problem: Problem, device: Device) -> bool:
    """Always: MLX has an error in its place."""
    return True


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """q, k and v with the key, and the padded output."""
    (with_key,) = _lowered(problem, device)
    heads = problem.query_heads * problem.query_length + problem.key_heads * with_key.key_length
    return problem.item_bytes * problem.batch * heads * 2 * with_key.head_dim


def _lowered(problem: Problem, device: Device) -> tuple[Problem, ...]:
    calls = lower(problem, device, None)
    assert not isinstance(calls, str)
    return calls


def run(call: Call, calls: tuple[Problem, ...], attend: Attend) -> mx.array:
    """Put the key before the others, attend, cut the values' own dim out."""
    (with_key,) = calls
    assert call.sinks is not None
    factor = _factor(call.scale)
    sinks = _in_parts(call.sinks.astype(mx.float32) / (call.scale * factor), call)
    missing = with_key.head_dim - call.problem.head_dim
    q = mx.concatenate([call.q, pad(sinks, 3, 0, missing - _PARTS)], axis=3)
    k = pad(pad(call.k, 2, before=1), 3, 0, missing) + _own_key(call, with_key, factor)
    v = pad(call.v, 2, before=1)
    v = pad(v, 3, 0, with_key.value_head_dim - call.problem.value_head_dim)
    out = attend(replace(call, problem=with_key, q=q, k=k, v=v, sinks=None))
    return out[..., : call.problem.value_head_dim]


def _factor(scale: float) -> float:
    """What the sink's key holds: the power of two that is nearest to 1 / scale, so that what the
    queries hold is about as large as the sinks."""
    exponent = 1 - frexp(abs(scale))[1]
    return 2.0 ** min(max(exponent, _LEAST_EXPONENT), _LARGEST_EXPONENT)


def _in_parts(sinks: mx.array, call: Call) -> mx.array:
    """float32 `[H]` as numbers of the queries' type that sum up to them, for each query:
    `[B, H, L, parts]`."""
    batch, heads, length, _ = call.q.shape
    # Spread in float32, so that the gradient is summed up in it.
    rest = mx.reshape(mx.maximum(sinks, _NO_SINK), (1, heads, 1, 1))
    rest = mx.broadcast_to(rest, (batch, heads, length, 1))
    parts = []
    for _ in range(_PARTS):
        parts.append(rest.astype(call.q.dtype))
        rest = rest - parts[-1].astype(mx.float32)
    return mx.concatenate(parts, axis=3)


def _own_key(call: Call, with_key: Problem, factor: float) -> mx.array:
    """Zeros but for the sink's own head dims of the first key, `[keys, head dim]`."""
    is_first = mx.arange(with_key.key_length)[:, None] == 0
    dims = mx.arange(with_key.head_dim) - call.problem.head_dim
    return mx.where(is_first & (dims >= 0) & (dims < _PARTS), factor, 0.0).astype(call.k.dtype)
