"""Whether a model computes with flash attention what it computes without."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from ... import stock
from ...planning.machine import current_device
from .check import multiplies_as_tf32, to_ten_bits
from .models import Model
from .numbers import significant
from .variants import attention, replaced
from .workloads import random_tokens

_LENGTH_COMPARED = 2048
# A result that is farther from that of stock than so many times what other roundings do is wrong.
_MOST_ROUNDINGS, _EPSILON = 10, 2.0**-23
# Where other roundings alone move the logits by so much of the largest, they say nothing.
MOST_ROUNDING = 0.1
_FACTOR = 1.3  # no power of two, which would change no rounding


def compared(model: Model, length: int) -> dict[str, Any]:
    """How far ours is from stock for one row of tokens, relative to the largest element, with how
    far stock is from itself in other roundings (`_rounded_otherwise`): of the logits (`difference`,
    `rounding`), and of the outputs of attention, layer by layer on the same inputs
    (`layer_difference`, `layer_rounding`: the largest of all layers; None where no layer calls
    MLX's function)."""
    tokens = random_tokens(model, 1, min(length, _LENGTH_COMPARED))
    module: Any = model.module
    module.eval()
    logits = {}
    for variant in ("stock", "ours"):
        with attention(variant):
            logits[variant] = _evaluated(module, tokens)
    with attention("stock"), replaced(_rounded_otherwise):
        logits["rounded otherwise"] = _evaluated(module, tokens)
    return {
        "difference": _distance(logits["ours"], logits["stock"]),
        "rounding": _distance(logits["rounded otherwise"], logits["stock"]),
        **_by_layer(module, tokens),
    }


def is_wrong(found: dict[str, Any]) -> bool:
    """Whether a result of `compared` is too far from stock; logits count where they can say so."""
    pairs = [(found["layer_difference"], found["layer_rounding"])]
    if not found["rounding"] > MOST_ROUNDING:
        pairs.append((found["difference"], found["rounding"]))
    known = [(difference, rounding) for difference, rounding in pairs if difference is not None]
    # NaN is not within any distance.
    return any(not own <= _MOST_ROUNDINGS * max(rounding, _EPSILON) for own, rounding in known)


def _evaluated(module: Any, tokens: mx.array) -> mx.array:
    logits: mx.array = module(tokens).astype(mx.float32)
    mx.eval(logits)
    return logits


def _distance(result: mx.array, expected: mx.array) -> float:
    """The largest difference relative to the largest element."""
    result, expected = result.astype(mx.float32), expected.astype(mx.float32)
    furthest: Any = (mx.abs(result - expected).max() / mx.abs(expected).max()).item()
    return significant(furthest, 2)


def _by_layer(module: Any, tokens: mx.array) -> dict[str, Any]:
    """A forward pass on stock attention, in which every layer's call is computed three ways."""
    differences: list[float] = []
    roundings: list[float] = []
    with attention("ours"):
        ours = mx.fast.scaled_dot_product_attention

        def three_ways(q: mx.array, k: mx.array, v: mx.array, **arguments: Any) -> mx.array:
            expected = stock.attention(q, k, v, **arguments)
            differences.append(_distance(ours(q, k, v, **arguments), expected))
            roundings.append(_distance(_rounded_otherwise(q, k, v, **arguments), expected))
            return expected

        with replaced(three_ways):
            _evaluated(module, tokens)
    return {
        "layer_difference": max(differences, default=None),
        "layer_rounding": max(roundings, default=None),
    }


def _rounded_otherwise(
    q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: Any = None, **rest: Any
) -> mx.array:
    """Stock attention in other roundings: with the keys in reverse order, and where the device
    multiplies as TF32 with other numbers to round: all of them times a factor."""
    if isinstance(mask, str):
        length = k.shape[2]
        mask = mx.arange(length) <= mx.arange(length - q.shape[2], length)[:, None]
    if mask is not None:
        mask = _backwards(mask, -1)
    k, v = _backwards(k, 2), _backwards(v, 2)
    if q.dtype != mx.float32 or not multiplies_as_tf32(current_device()):
        return stock.attention(q, k, v, scale=scale, mask=mask, **rest)
    q, k, v = (to_ten_bits(_FACTOR * x) for x in (q, k, v))
    return stock.attention(q, k, v, scale=scale / _FACTOR**2, mask=mask, **rest) / _FACTOR


def _backwards(x: mx.array, axis: int) -> mx.array:
    # A copy: cuDNN takes no negative strides.
    return mx.take(x, mx.arange(x.shape[axis] - 1, -1, -1), axis=axis)
