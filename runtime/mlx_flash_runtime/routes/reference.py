"""The definition: softmax(scale * Q K^T + mask, with sinks) V in float32, for any input. Every
other route is tested against it.

A bool mask puts the most negative finite number in place of a score rather than minus infinity, as
MLX's own unfused attention does: a row that sees no key at all is then the mean of all values, not
NaN. An additive row of minus infinities is NaN, there as here. Causal masks align the last query
with the last key.
"""

from __future__ import annotations

import mlx.core as mx

from ..problem import Attend, Call, Device, Problem
from ..problem.masks import as_array
from .route import Route


class Reference(Route):
    """The formula of this module's docstring, in one piece."""

    name = "reference"
    improves = False

    def holds(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Any problem."""
        return True, "the definition holds for every input"

    def pays(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Always: it is the last to be asked."""
        return True, "nothing else holds"

    def extra_memory(self, problem: Problem, device: Device, block_size: int | None) -> int:
        """The scores before and after the softmax, in float32."""
        return 2 * 4 * problem.score_count

    def attend(self, problem: Problem, device: Device, block_size: int | None) -> Attend:
        """The formula."""
        return _attend


def _attend(call: Call) -> mx.array:
    """The formula of this module's docstring, in one piece."""
    problem = call.problem
    groups = problem.query_heads // problem.key_heads
    # q: [B, H_kv, G, L, D]; k, v: [B, H_kv, 1, S, D]
    queries = call.scale * mx.unflatten(call.q.astype(mx.float32), 1, (problem.key_heads, groups))
    keys = mx.expand_dims(call.k.astype(mx.float32), 2)
    values = mx.expand_dims(call.v.astype(mx.float32), 2)
    scores = queries @ mx.swapaxes(keys, -1, -2)
    if problem.softcap is not None:
        scores = problem.softcap * mx.tanh(scores / problem.softcap)
    mask = call.mask
    if problem.visible is not None:
        mask = as_array(problem.visible, problem.query_length, problem.key_length)
    if mask is not None:
        mask = mask if mask.dtype == mx.bool_ else mask.astype(mx.float32)
        full = mx.broadcast_to(mask, (*call.q.shape[:3], problem.key_length))
        full = mx.unflatten(full, 1, (problem.key_heads, groups))
        hidden = mx.finfo(mx.float32).min
        scores = mx.where(full, scores, hidden) if mask.dtype == mx.bool_ else scores + full
    if call.sinks is not None:
        column = mx.reshape(call.sinks.astype(mx.float32), (1, problem.key_heads, groups, 1, 1))
        scores = mx.concatenate([mx.broadcast_to(column, (*scores.shape[:-1], 1)), scores], axis=-1)
    weights = mx.softmax(scores, axis=-1)
    if call.sinks is not None:
        weights = weights[..., 1:]
    return mx.flatten(weights @ values, 1, 2).astype(call.dtype)


reference = Reference()
