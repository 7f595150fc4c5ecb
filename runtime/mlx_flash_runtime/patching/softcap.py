"""Attention with softcapped scores, which MLX has no function for: mlx-lm writes it out, in Gemma
2 and in Gear."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import mlx.core as mx

from ..ops import written_out
from ..planning import layers
from ..planning.counts import Decision, Kind
from . import state

HAND_WRITTEN = Decision(
    "unfused", "the model's own attention with softcapped scores: nothing here is faster for it"
)

Attention = Callable[..., mx.array]
IsSame = Callable[[], bool]

# Attributes of mlx-lm's Gemma 2 attention that are used here; with others, it is another release's.
_GEMMA2 = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "rope", "n_heads", "n_kv_heads", "repeats", "scale"),
    "attn_logit_softcapping",
)


def of_arrays(original: Attention, is_same: IsSame) -> Attention:
    """`_softcap_attention` of mlx-lm's gear module, by the planned route where there is one for
    its scores."""

    @wraps(original)
    def softcap_attention(
        queries: mx.array, keys: mx.array, values: mx.array, scale: float, softcap: float, mask: Any
    ) -> mx.array:
        planner = state.planner
        if planner is None or not is_same():
            return original(queries, keys, values, scale, softcap, mask)
        plan = planner.lookup(queries, keys, values, mask, None, softcap)
        layers.count(
            plan.kind if plan.improves else Kind(plan.kind.phase, *HAND_WRITTEN), sys._getframe(1)
        )
        if plan.improves:
            return plan.run(queries, keys, values, scale=scale, mask=mask, sinks=None)
        return original(queries, keys, values, scale, softcap, mask)

    return softcap_attention


def gemma2_layer(original: Attention, is_same: IsSame) -> Attention:
    """`Attention.__call__` of mlx-lm's gemma2 module, with its scores by `of_arrays`."""

    @wraps(original)
    def attention(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        # mlx-lm reads a mask of more than 2 axes along the 5 axes of its scores: as it does so, if
        # it does so.
        own_reading = (
            isinstance(mask, mx.array) and mask.ndim > 2 and getattr(self, "repeats", 1) > 1
        )
        strange = hasattr(cache, "bits") or not all(hasattr(self, name) for name in _GEMMA2)
        if state.planner is None or own_reading or strange or not is_same():
            return original(self, x, mask, cache)
        offset = 0 if cache is None else cache.offset
        q = self.rope(_heads(self.q_proj(x), self.n_heads), offset=offset)
        k = self.rope(_heads(self.k_proj(x), self.n_kv_heads), offset=offset)
        v = _heads(self.v_proj(x), self.n_kv_heads)
        if cache is not None:
            k, v = cache.update_and_fetch(k, v)
        out = _of_gemma2(q, k, v, self.scale, self.attn_logit_softcapping, mask)
        return self.o_proj(mx.flatten(mx.swapaxes(out, 1, 2), 2, 3))  # type: ignore[no-any-return]  # an nn.Module

    return attention


def _written_out(
    q: mx.array, k: mx.array, v: mx.array, scale: float, softcap: float, mask: Any
) -> mx.array:
    """Gemma 2's attention with the operations of mlx-lm, in their order."""
    return written_out.attention(q, k, v, scale=scale, mask=mask, softcap=softcap)


_of_gemma2 = of_arrays(_written_out, lambda: True)


def _heads(x: mx.array, heads: int) -> mx.array:
    """[B, L, H * D] to [B, H, L, D]."""
    return mx.swapaxes(mx.unflatten(x, -1, (heads, -1)), 1, 2)
