"""Attention written out in MLX operations: `softmax(scale * Q K^T + mask, with sinks) V`.

All scores are kept at once, in the type of the inputs. The steps have functions of their own for
those who keep fewer scores or make them otherwise.
"""

from __future__ import annotations

import mlx.core as mx

from ..problem.masks import Causal, Structure, as_array

# A mask as MLX takes it, or by what it says.
Mask = mx.array | str | Structure


def attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: Mask | None = None,
    sinks: mx.array | None = None,
    softcap: float | None = None,
) -> mx.array:
    """The formula in one piece, `[B, H, L, D_v]`; shapes as in `flash_attention`. The operations
    are those that mlx-lm has for Gemma 2, in their order."""
    return attention_and_weights(q, k, v, scale=scale, mask=mask, sinks=sinks, softcap=softcap)[0]


def attention_and_weights(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: Mask | None = None,
    sinks: mx.array | None = None,
    softcap: float | None = None,
) -> tuple[mx.array, mx.array]:
    """The same, with the weight that each query gives to each key, `[B, H, L, S]`."""
    key_heads = k.shape[1]
    grouped = q.shape[1] > key_heads
    if grouped:  # q: [B, H_kv, G, L, D]; k, v: [B, H_kv, 1, S, D]
        q = mx.unflatten(q, 1, (key_heads, -1))
        k, v = mx.expand_dims(k, 2), mx.expand_dims(v, 2)
    scores = softcapped((q * scale) @ mx.swapaxes(k, -1, -2), softcap)
    if mask is not None:
        array = mask_as_array(mask, scores.shape[-2], scores.shape[-1])
        scores = masked(scores, by_key_head(array, key_heads) if grouped else array)
    weights = weights_of(scores, sinks)
    out = weights @ v
    return (mx.flatten(out, 1, 2), mx.flatten(weights, 1, 2)) if grouped else (out, weights)


def softcapped(scores: mx.array, softcap: float | None) -> mx.array:
    """`softcap * tanh(scores / softcap)`; the scores as they are without a softcap."""
    return scores if softcap is None else mx.tanh(scores / softcap) * softcap


def mask_as_array(mask: Mask, query_length: int, key_length: int) -> mx.array:
    """The mask as an array: `"causal"` and structures are bool `[L, S]`, an array stays as it
    is."""
    if isinstance(mask, mx.array):
        return mask
    structure = Causal() if isinstance(mask, str) else mask
    return as_array(structure, query_length, key_length)


def by_key_head(mask: mx.array, key_heads: int) -> mx.array:
    """A mask of up to 4 axes along the 5 of scores `[B, H_kv, G, L, S]`, whose query heads stand
    by the key head that they share."""
    mask = mx.reshape(mask, (1,) * (4 - mask.ndim) + tuple(mask.shape))
    if mask.shape[1] == 1:
        return mx.expand_dims(mask, 2)
    return mx.unflatten(mask, 1, (key_heads, -1))


def masked(scores: mx.array, mask: mx.array) -> mx.array:
    """The scores under a mask that broadcasts to them: an additive one is added, a bool one says
    which stay.

    A hidden score becomes the most negative finite number rather than minus infinity, as in MLX's
    own unfused attention: a query that sees no key at all gets the mean of all values, not NaN.
    """
    if mask.dtype != mx.bool_:
        return scores + mask
    hidden = mx.array(mx.finfo(scores.dtype).min, scores.dtype)
    return mx.where(mask, scores, hidden)


def weights_of(scores: mx.array, sinks: mx.array | None = None) -> mx.array:
    """The softmax over the keys. `sinks`, `[H]` for scores of `[B, H, L, S]` or `[B, H_kv, G, L,
    S]`, are one score more for each query of a head: it takes its share of the weight, and no
    value belongs to it."""
    if sinks is None:
        return mx.softmax(scores, axis=-1, precise=True)
    column = mx.reshape(sinks, (*scores.shape[1:-2], 1, 1)).astype(scores.dtype)
    column = mx.broadcast_to(column, (*scores.shape[:-1], 1))
    return mx.softmax(mx.concatenate([column, scores], axis=-1), axis=-1, precise=True)[..., 1:]
