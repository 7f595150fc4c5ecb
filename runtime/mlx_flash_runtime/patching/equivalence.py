"""Whether a function does what one of mlx-lm's does: its results on small inputs, held against the
formula."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from types import SimpleNamespace
from typing import Any

import mlx.core as mx

from ..ops import written_out
from ..problem.masks import Causal, Window, as_array

Function = Callable[..., Any]

_HEADS, _KEY_HEADS, _LENGTH, _KEYS, _DIM = 4, 2, 3, 5, 32
_SCALE, _SOFTCAP = 0.2, 2.0
_BITS, _GROUP = 8, _DIM
# What is added to a hidden score is below this.
_HIDDEN = -1e8
# Queries, keys before them, window.
_MASKS = ((3, 0, None), (2, 3, None), (4, 1, 2), (1, 4, 3))


def is_causal_mask(function: Function) -> bool:
    """Whether it makes bool masks, causal and over a window, `[N, offset + N]`."""
    for length, offset, window in _MASKS:
        mask = function(length, offset, window_size=window)
        structure = Causal() if window is None else Window(window)
        wanted = as_array(structure, length, offset + length)
        if mask.dtype != mx.bool_ or not mx.array_equal(mask, wanted):
            return False
    return True


def is_additive_causal_mask(function: Function) -> bool:
    """Whether it makes causal masks that are added to scores, for as many keys as queries unless
    it is told of keys before them."""
    takes_offset = "offset" in signature(function).parameters
    for arguments in ((4,), (3, 2)) if takes_offset else ((4,),):
        length, keys = arguments[0], sum(arguments)
        seen = as_array(Causal(), length, keys)
        mask = function(*arguments)
        if mask.shape != (length, keys) or not mx.all(mx.where(seen, mask == 0, mask < _HIDDEN)):
            return False
    return True


def is_quantized_attention(function: Function) -> bool:
    """Whether it is attention over quantized keys and values."""
    q, _, _ = _inputs()
    (q_keys, k), (q_values, v) = _quantized(1), _quantized(2)
    for mask in _masks(_LENGTH, _KEYS):
        # Stock works on its queries in place.
        found = function(
            q + 0, q_keys, q_values, scale=_SCALE, mask=mask, group_size=_GROUP, bits=_BITS
        )
        if not _are_close(found, written_out.attention(q, k, v, scale=_SCALE, mask=mask)):
            return False
    return True


def refuses_sinks(function: Function) -> bool:
    """Whether it is MLX's attention, and raises ValueError for sinks over a quantized cache."""
    q, k, v = _inputs()
    found = function(q, k, v, None, scale=_SCALE, mask="causal", sinks=None)
    wanted = written_out.attention(q, k, v, scale=_SCALE, mask="causal")
    cache = SimpleNamespace(bits=_BITS, group_size=_GROUP)
    try:
        function(
            q,
            _quantized(1)[0],
            _quantized(2)[0],
            cache,
            scale=_SCALE,
            mask=None,
            sinks=mx.zeros(_HEADS),
        )
    except ValueError:
        return _are_close(found, wanted)
    return False


def is_softcapped_attention(function: Function) -> bool:
    """Whether it is attention with softcapped scores."""
    q, k, v = _inputs()
    for mask in _masks(_LENGTH, _KEYS):
        found = function(q, k, v, _SCALE, _SOFTCAP, mask)
        wanted = written_out.attention(q, k, v, scale=_SCALE, mask=mask, softcap=_SOFTCAP)
        if not _are_close(found, wanted):
            return False
    return True


def is_gemma2_layer(function: Function) -> bool:
    """Whether it is the method of an attention layer with softcapped scores, as Gemma 2 has it."""
    # Of a layer that projects to what it gets: no weights are needed.
    q, k, v = (mx.swapaxes(x, 1, 2)[:, :_LENGTH] for x in _inputs())
    layer = SimpleNamespace(
        q_proj=lambda x: mx.flatten(q, -2),
        k_proj=lambda x: mx.flatten(k, -2),
        v_proj=lambda x: mx.flatten(v, -2),
        o_proj=lambda x: x,
        rope=_rope,
        n_heads=_HEADS,
        n_kv_heads=_KEY_HEADS,
        repeats=_HEADS // _KEY_HEADS,
        head_dim=_DIM,
        scale=_SCALE,
        attn_logit_softcapping=_SOFTCAP,
    )
    x = mx.zeros((1, _LENGTH, _HEADS * _DIM))
    arrays = _rope(mx.swapaxes(q, 1, 2)), _rope(mx.swapaxes(k, 1, 2)), mx.swapaxes(v, 1, 2)
    for mask in _masks(_LENGTH, _LENGTH):
        if isinstance(mask, str):  # which mlx-lm has not for it
            continue
        found = function(layer, x, mask, None)
        wanted = written_out.attention(*arrays, scale=_SCALE, mask=mask, softcap=_SOFTCAP)
        if not _are_close(found, mx.flatten(mx.swapaxes(wanted, 1, 2), -2)):
            return False
    return True


def _inputs() -> tuple[mx.array, mx.array, mx.array]:
    """Queries `[1, H, L, D]`, keys and values `[1, H_kv, S, D]`, with keys of their own: a
    program's random numbers stay what they would be."""
    key = mx.random.key(0)
    shapes = ((_HEADS, _LENGTH), (_KEY_HEADS, _KEYS), (_KEY_HEADS, _KEYS))
    q, k, v = (
        mx.random.normal((1, *shape, _DIM), key=own)
        for shape, own in zip(shapes, mx.random.split(key, 3), strict=True)
    )
    return q, k, v


def _rope(x: mx.array, offset: int = 0) -> mx.array:
    return mx.fast.rope(x, _DIM, traditional=False, base=1e4, scale=1.0, offset=offset)


def _masks(length: int, keys: int) -> tuple[mx.array | str | None, ...]:
    causal = as_array(Causal(), length, keys)
    return None, "causal", causal, mx.where(causal, 0.5, -3.0)


def _quantized(seed: int) -> tuple[tuple[mx.array, mx.array, mx.array], mx.array]:
    """Keys or values `[1, H_kv, S, D]` as MLX keeps them quantized (numbers of 8 bits, four in a
    word, with a scale and a bias for each group), and what they stand for."""
    shape = (1, _KEY_HEADS, _KEYS, _DIM)
    own = mx.random.split(mx.random.key(seed), 3)
    numbers = mx.random.randint(0, 256, shape, key=own[0])
    scales = mx.random.uniform(0.005, 0.01, (*shape[:-1], _DIM // _GROUP), key=own[1])
    biases = mx.random.uniform(-1.5, -1.0, scales.shape, key=own[2])
    words = numbers.astype(mx.uint8).view(mx.uint32)
    return (words, scales, biases), scales * numbers + biases


def _are_close(found: Any, wanted: mx.array) -> bool:
    """Whether two float32 results differ by rounding alone."""
    is_alike = isinstance(found, mx.array) and found.shape == wanted.shape
    return is_alike and bool(mx.allclose(found, wanted, rtol=1e-4, atol=1e-5))
