"""Masks that MLX has no word for: causal from the first query and key on, and one under which a
query that sees no key gets zeros."""

from __future__ import annotations

import mlx.core as mx

from ..problem.masks import Causal, as_array, structure_of

# As PyTorch calls it; its other alignment, of the last query with the last key, is "causal" in MLX.
CAUSAL_UPPER_LEFT = "causal_upper_left"


def upper_left(q: mx.array, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array, mx.array | str]:
    """Keys, values and mask of a call in which the query at i sees the keys from 0 to i: where
    there are fewer queries than keys, no query sees the keys behind them."""
    queries, keys = q.shape[2], k.shape[2]
    if queries <= keys:
        return k[:, :, :queries], v[:, :, :queries], "causal"
    return k, v, mx.arange(keys) <= mx.arange(queries)[:, None]


def with_rows_shown(
    mask: mx.array | str | None, query_length: int, key_length: int
) -> tuple[mx.array | str | None, mx.array | None]:
    """The mask, and which rows of it hide every key: all False, or all minus infinity. These are
    shown every key instead, so that what is computed there is finite, and replaced by zeros has
    gradients of zero; of NaN they would be NaN, as zero times NaN is.

    The rows are bool, of the mask's own shape with 1 in place of its last axis; None where it is
    known to have no such row.
    """
    if mask is None:
        return None, None
    if isinstance(mask, str):
        if query_length <= key_length:
            return mask, None
        mask = as_array(Causal(), query_length, key_length)
    elif structure_of(mask, query_length, key_length) is not None:
        return mask, None  # a query sees itself, whatever the structure
    is_bool = mask.dtype == mx.bool_
    hides = ~mask if is_bool else mask == -mx.inf
    rows = mx.all(hides, axis=-1, keepdims=True) if hides.ndim else hides
    return mx.where(rows, mx.array(is_bool, mask.dtype), mask), rows
