"""The kinds of attention that a workflow is measured with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import mlx.core as mx

from ...control import flash_attention_enabled
from ...patching import state

# `without` has something as cheap as possible in the place of attention: what is left is what
# attention cannot gain.
VARIANTS = ("stock", "ours", "without")


@contextmanager
def attention(variant: str) -> Iterator[None]:
    """Puts one of VARIANTS in the place of MLX's attention."""
    paused = nullcontext() if variant == "ours" else state.paused()
    with flash_attention_enabled(), paused:
        if variant != "without":
            yield
            return
        with replaced(stand_in):
            yield


@contextmanager
def replaced(function: Any) -> Iterator[None]:
    """Puts a function in the place of `mx.fast.scaled_dot_product_attention`."""
    original = mx.fast.scaled_dot_product_attention
    mx.fast.scaled_dot_product_attention = function
    try:
        yield
    finally:
        mx.fast.scaled_dot_product_attention = original


def stand_in(q: mx.array, k: mx.array, v: mx.array, **_: Any) -> mx.array:
    """Has the shape of attention's output and needs all of q, k and v, so that whatever computes
    them is still run, forward and backward; itself it only adds numbers, as many as the output
    has. (With fewer keys than queries, those that the window's cache has kept, their mean.)"""
    groups, length = q.shape[1] // k.shape[1], q.shape[2]
    if k.shape[2] >= length:
        k, v = k[:, :, -length:], v[:, :, -length:]
    else:
        k, v = k.mean(axis=2, keepdims=True), v.mean(axis=2, keepdims=True)
    k = k.mean(axis=-1, keepdims=True)
    if groups > 1:
        k, v = mx.repeat(k, groups, axis=1), mx.repeat(v, groups, axis=1)
    return v + k + q.mean(axis=-1, keepdims=True)
