"""The definition: softmax(scale * Q K^T + mask, with sinks) V in float32, for any input. Every other route is tested
against it.

A bool mask puts the most negative finite number in place of a score rather than minus infinity, as MLX's own unfused
attention does: a row that sees no key at all is then the mean of all values, not NaN. An additive row of minus
infinities is NaN, there as here. Causal masks align the last query with the last key.
"""

from __future__ import annotations

import mlx.core as mx

from ..problem import Device, Problem, promoted

NAME = "reference"


def accepts(problem: Problem, device: Device) -> tuple[bool, str]:
    """Any problem."""
    return True, "the definition holds for every input"


def block_size(problem: Problem, device: Device) -> int | None:
    """None: it has no blocks."""
    return None


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """The scores before and after the softmax, in float32."""
    return 2 * 4 * problem.score_count


def run(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: mx.array | str | None,
    sinks: mx.array | None,
    block_size: int | None,
) -> mx.array:
    """The formula of this module's docstring, in one piece."""
    dtype = promoted(q.dtype, k.dtype, v.dtype)
    batch, heads, query_length, _ = q.shape
    key_heads, key_length = k.shape[1:3]
    groups = heads // key_heads
    # q: [B, H_kv, G, L, D]; k, v: [B, H_kv, 1, S, D]
    queries = scale * mx.unflatten(q.astype(mx.float32), 1, (key_heads, groups))
    keys = mx.expand_dims(k.astype(mx.float32), 2)
    values = mx.expand_dims(v.astype(mx.float32), 2)
    scores = queries @ mx.swapaxes(keys, -1, -2)
    if isinstance(mask, str):
        mask = mx.arange(key_length - query_length, key_length)[:, None] >= mx.arange(key_length)
    if mask is not None:
        mask = mask if mask.dtype == mx.bool_ else mask.astype(mx.float32)
        full = mx.broadcast_to(mask, (batch, heads, query_length, key_length))
        full = mx.unflatten(full, 1, (key_heads, groups))
        hidden = mx.finfo(mx.float32).min
        scores = mx.where(full, scores, hidden) if mask.dtype == mx.bool_ else scores + full
    if sinks is not None:
        column = mx.reshape(sinks.astype(mx.float32), (1, key_heads, groups, 1, 1))
        scores = mx.concatenate([mx.broadcast_to(column, (*scores.shape[:-1], 1)), scores], axis=-1)
    weights = mx.softmax(scores, axis=-1)
    if sinks is not None:
        weights = weights[..., 1:]
    return mx.flatten(weights @ values, 1, 2).astype(dtype)
