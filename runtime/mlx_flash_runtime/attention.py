"""Attention as a function of its own, whether or not MLX is patched."""

from __future__ import annotations

from typing import Literal, overload

import mlx.core as mx

from . import stock
from .control import mlx_is_known, settings_in_force
from .ops.alignment import CAUSAL_UPPER_LEFT, upper_left, with_rows_shown
from .ops.padding import pad
from .patching import state
from .planning.planner import planner_for
from .problem import fault
from .routes.reference import attend_with_weights, reference

HiddenRows = Literal["zeros"]


@overload
def flash_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: mx.array | str | None = None,
    sinks: mx.array | None = None,
    block_size: int | None = None,
    hidden_rows: HiddenRows | None = None,
    return_weights: Literal[True],
) -> tuple[mx.array, mx.array]: ...


@overload
def flash_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: mx.array | str | None = None,
    sinks: mx.array | None = None,
    block_size: int | None = None,
    hidden_rows: HiddenRows | None = None,
    return_weights: Literal[False] = False,
) -> mx.array: ...


def flash_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: mx.array | str | None = None,
    sinks: mx.array | None = None,
    block_size: int | None = None,
    hidden_rows: HiddenRows | None = None,
    return_weights: bool = False,
) -> mx.array | tuple[mx.array, mx.array]:
    """`softmax(scale * q @ k.T + mask) @ v` on the planned route, whether or not MLX is patched.

    q is `[B, H, L, D]`, k `[B, H_kv, S, D]`, v `[B, H_kv, S, D_v]` with H a multiple of H_kv, all
    of one floating type (else of the type that they promote to); the result is `[B, H, L, D_v]`.
    `mask` is None, `"causal"` (the last query aligned with the last key), `"causal_upper_left"`
    (the first query aligned with the first key), or an array that broadcasts to `[B, H, L, S]`:
    bool (True is seen) or added to the scores. `sinks` is `[H]`, one more score per head that
    takes weight and has no value. `block_size` as in `enable_flash_attention`. A function that is
    being exported gets MLX's own operations.

    With `hidden_rows="zeros"` a query that sees no key gets zeros, and its gradients are zeros: its
    row of a bool mask is all False, that of an additive one all minus infinity, or there are more
    queries than keys under `"causal"`. Without, it gets what MLX gives it: the mean of all values,
    or NaN.

    With `return_weights=True` the result is a pair, the attention and the weights of all keys,
    `[B, H, L, S]`, both computed by the route `reference`, with all scores in memory.

    Raises ValueError for a bad `block_size` or `hidden_rows`; for weights where another route was
    asked for by name (`MLX_FLASH_ROUTE`); and what MLX's own function raises for arguments that it
    rejects, or, with one of these three choices, ValueError for those that no route describes.
    """
    settings = settings_in_force(block_size)
    planner = planner_for(settings) if settings.enabled and mlx_is_known() else None
    rows = None
    if hidden_rows is not None or return_weights or _is(mask, CAUSAL_UPPER_LEFT):
        _check(q, k, v, mask, sinks, hidden_rows)
        if return_weights and settings.route not in (None, reference.name):
            raise ValueError(
                f"route {settings.route} has no weights to return: only {reference.name} has"
            )
        key_length = k.shape[2]
        if _is(mask, CAUSAL_UPPER_LEFT):
            k, v, mask = upper_left(q, k, v)
        if hidden_rows is not None:
            mask, rows = with_rows_shown(mask, q.shape[2], k.shape[2])
        if return_weights:
            out, weights = attend_with_weights(q, k, v, scale=scale, mask=mask, sinks=sinks)
            weights = pad(weights, 3, 0, key_length - k.shape[2])
            return _zeros_at(rows, out), _zeros_at(rows, weights)
    if planner is None or state.is_paused():
        out = stock.attention(q, k, v, scale=scale, mask=mask, sinks=sinks)
    else:
        out = planner.attend(q, k, v, scale, mask, sinks)
    return _zeros_at(rows, out)


def _is(mask: mx.array | str | None, word: str) -> bool:
    return isinstance(mask, str) and mask == word


def _check(
    q: object, k: object, v: object, mask: mx.array | str | None, sinks: object, hidden_rows: object
) -> None:
    """Raises ValueError for arguments that MLX will not see as they are."""
    if hidden_rows not in (None, "zeros"):
        raise ValueError(f'hidden_rows is {hidden_rows!r}: it must be None or "zeros"')
    known_mask = "causal" if _is(mask, CAUSAL_UPPER_LEFT) else mask
    wrong = fault(q, k, v, known_mask, sinks)
    if wrong is not None:
        raise ValueError(wrong)


def _zeros_at(rows: mx.array | None, out: mx.array) -> mx.array:
    return out if rows is None else mx.where(rows, mx.zeros((), out.dtype), out)
