"""Gemma 2's attention, which mlx-lm writes out by hand for the sake of its softcapped scores."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import mlx.core as mx

from . import layers, state
from .layers import Decision, Kind

# Attributes of mlx-lm's class that this needs; with others, it is another release's.
_PARTS = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "rope",
    "n_heads",
    "n_kv_heads",
    "head_dim",
    "scale",
    "attn_logit_softcapping",
)
HAND_WRITTEN = Decision("unfused", "the model's own attention with softcapped scores: nothing here is faster for it")


def softcapped(original: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """`Attention.__call__` of mlx-lm's gemma2 module, by the planned route where there is one for its scores."""

    @wraps(original)
    def attention(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        planner = state.planner
        offset = 0 if cache is None else cache.offset
        if planner is None or not isinstance(offset, int) or not all(hasattr(self, name) for name in _PARTS):
            return original(self, x, mask, cache)
        batch, length, _ = x.shape
        plan = planner.plan_softcapped(
            (batch, length, offset + length),
            (self.n_heads, self.n_kv_heads, self.head_dim),
            x.dtype,
            mask,
            float(self.attn_logit_softcapping),
        )
        if not plan.is_ours:
            layers.count(Kind(plan.kind.phase, *HAND_WRITTEN), sys._getframe(0))
            return original(self, x, mask, cache)
        layers.count(plan.kind, sys._getframe(0))
        q = self.rope(_heads(self.q_proj(x), self.n_heads), offset=offset)
        k = self.rope(_heads(self.k_proj(x), self.n_kv_heads), offset=offset)
        v = _heads(self.v_proj(x), self.n_kv_heads)
        if cache is not None:
            k, v = cache.update_and_fetch(k, v)
        out = plan.run(q, k, v, scale=self.scale, mask=mask)
        return self.o_proj(mx.flatten(mx.swapaxes(out, 1, 2), 2, 3))  # type: ignore[no-any-return]  # an nn.Module

    return attention


def _heads(x: mx.array, heads: int) -> mx.array:
    """[B, L, H * D] to [B, H, L, D]."""
    return mx.swapaxes(mx.unflatten(x, -1, (heads, -1)), 1, 2)
