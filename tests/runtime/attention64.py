"""Attention in float64 NumPy, forward and backward, written from the definition: what every route
is held against.

Shapes as in `mlx_flash_runtime.flash_attention`. Scores that a bool or causal mask hides become
the most negative finite float32, so a query that sees no key gets the mean of all values, as in
MLX.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
HIDDEN = float(np.finfo(np.float32).min)


def attention(
    q: Array,
    k: Array,
    v: Array,
    scale: float,
    mask: NDArray[Any] | str | None,
    sinks: Array | None,
    d_out: Array,
    softcap: float | None = None,
    magnitudes: bool = False,
) -> list[Array]:
    """The output and the gradients of `sum(output * d_out)`: of q, k, v, then of an additive mask
    and of sinks if any. With `magnitudes` the terms of each sum are added up by their magnitude,
    those that cancel too: what one rounding error of every term can come to."""
    batch, heads, length, _ = q.shape
    groups = heads // k.shape[1]
    keys, values = (np.repeat(x, groups, axis=1) for x in (k, v))
    scores = scale * np.einsum("bhld,bhsd->bhls", q, keys)
    slope: Array | float = 1.0
    if softcap is not None:
        square = np.tanh(scores / softcap) ** 2
        slope = 1 + square if magnitudes else 1 - square
        scores = softcap * np.tanh(scores / softcap)
    hidden = np.zeros(scores.shape, bool)
    additive = None
    if isinstance(mask, str):
        key_length = scores.shape[-1]
        hidden[:] = np.arange(key_length) > (np.arange(length) + key_length - length)[:, None]
    elif mask is not None and mask.dtype == bool:
        hidden[:] = ~mask
    elif mask is not None:
        additive = mask
        scores = scores + additive
    scores[hidden] = HIDDEN
    if sinks is not None:
        column = np.broadcast_to(sinks[None, :, None, None], (*scores.shape[:-1], 1))
        scores = np.concatenate([column, scores], axis=-1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    seen = weights[..., 1:] if sinks is not None else weights

    if magnitudes:
        q, keys, values, d_out = (np.abs(x) for x in (q, keys, values, d_out))
    d_weights = np.zeros_like(weights)
    d_weights[..., weights.shape[-1] - seen.shape[-1] :] = np.einsum(
        "bhld,bhsd->bhls", d_out, values
    )
    mean = (weights * d_weights).sum(-1, keepdims=True)
    d_scores = weights * (d_weights + mean if magnitudes else d_weights - mean)
    out = np.einsum("bhls,bhsd->bhld", seen, values)
    d_sinks = None
    if sinks is not None:
        d_sinks, d_scores = d_scores[..., 0].sum((0, 2)), d_scores[..., 1:]
    d_masked = np.where(hidden, 0.0, d_scores)
    d_scores = d_masked * slope

    def per_key_head(x: Array) -> Array:
        return x.reshape(batch, -1, groups, *x.shape[2:]).sum(2)

    gradients = [
        scale * np.einsum("bhls,bhsd->bhld", d_scores, keys),
        per_key_head(scale * np.einsum("bhls,bhld->bhsd", d_scores, q)),
        per_key_head(np.einsum("bhls,bhld->bhsd", seen, d_out)),
    ]
    if additive is not None:
        gradients.append(sum_to(d_masked, additive.shape))
    return [out, *gradients, *([] if d_sinks is None else [d_sinks])]


def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Undoes a broadcast from `shape`."""
    x = x.sum(tuple(range(x.ndim - len(shape))))
    return x.sum(
        tuple(axis for axis, size in enumerate(shape) if size == 1), keepdims=True
    ).reshape(shape)
