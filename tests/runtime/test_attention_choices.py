"""What `flash_attention` offers beyond MLX's function, against the float64 reference: output,
gradients, weights."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from arithmetic import agree
from attention64 import HIDDEN, Array, attention

from mlx_flash_runtime import flash_attention
from mlx_flash_runtime.masks import window_mask

SCALE = 0.25
LENGTHS = [(24, 24), (13, 24), (24, 13), (1, 24), (24, 1)]


def inputs(
    query_length: int, key_length: int, *, heads: int = 4, key_heads: int = 2, sinks: bool = False
) -> list[mx.array]:
    """q, k, v of two rows in a batch, and sinks if any."""
    random = np.random.default_rng(query_length * 100 + key_length)
    shapes = [
        (2, heads, query_length, 16),
        (2, key_heads, key_length, 16),
        (2, key_heads, key_length, 8),
        *([(heads,)] if sinks else []),
    ]
    return [mx.array(random.normal(size=shape).astype(np.float32)) for shape in shapes]


def own_answers(primals: list[mx.array], cotangent: Array, **options: Any) -> list[mx.array]:
    """The output and the gradients of all arrays."""

    def attend(q: mx.array, k: mx.array, v: mx.array, *sinks: mx.array) -> mx.array:
        own_sinks = sinks[0] if sinks else None
        return flash_attention(q, k, v, scale=SCALE, sinks=own_sinks, **options)

    outputs, gradients = mx.vjp(attend, primals, [mx.array(cotangent.astype(np.float32))])
    return outputs + gradients


def wanted_answers(
    primals: list[mx.array], cotangent: Array, mask: Any, hidden: Any = None
) -> list[Array]:
    """The same by the definition; `hidden` rows, which broadcast to the output, are zeros."""
    q, k, v, *sinks = (np.array(x, np.float64) for x in primals)
    if hidden is not None:
        cotangent = np.where(hidden, 0, cotangent)
    own_sinks = sinks[0] if sinks else None
    out, *gradients = attention(q, k, v, SCALE, mask, own_sinks, cotangent)
    return [out if hidden is None else np.where(hidden, 0, out), *gradients]


def cotangent_of(primals: list[mx.array]) -> Array:
    q, _, v = primals[:3]
    shape = (*q.shape[:3], v.shape[3])
    return np.random.default_rng(7).normal(size=shape)


def assert_close(own: list[mx.array], wanted: list[Array]) -> None:
    for x, y in zip(own, wanted, strict=True):
        assert np.isfinite(np.array(x)).all()
        assert agree(x, mx.array(y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_causal_from_the_upper_left(lengths: tuple[int, int], sinks: bool) -> None:
    primals = inputs(*lengths, sinks=sinks)
    cotangent = cotangent_of(primals)
    sees = np.broadcast_to(np.tri(*lengths, dtype=bool), (2, 4, *lengths))
    own = own_answers(primals, cotangent, mask="causal_upper_left")
    assert_close(own, wanted_answers(primals, cotangent, sees))


def bool_masks() -> dict[str, mx.array]:
    """Masks of (2, 4, 13, 24) scores, most with rows that hide every key."""
    random = np.random.default_rng(3)
    rows = random.random((13, 24)) > 0.5
    rows[[0, 5, 12]] = False
    each = random.random((2, 4, 13, 24)) > 0.5
    each[0, 1, 3] = each[1, 3] = False
    padding = np.ones((2, 1, 1, 24), bool)
    padding[1] = False
    column = np.ones((13, 1), bool)
    column[4] = False
    masks = {"rows": rows, "each": each, "padding": padding, "column": column}
    return {name: mx.array(mask) for name, mask in masks.items()} | {
        "keys": mx.zeros((24,), mx.bool_),
        "one": mx.array(False),
        "window": window_mask(13, 5, 24),
    }


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("name", bool_masks())
def test_rows_that_see_no_key_are_zeros(name: str, sinks: bool, additive: bool) -> None:
    mask = bool_masks()[name]
    sees = np.broadcast_to(np.array(mask), (2, 4, 13, 24))
    hidden = ~sees.any(-1, keepdims=True)
    primals = inputs(13, 24, sinks=sinks)
    cotangent = cotangent_of(primals)
    own_mask = mx.where(mask, 0.0, -mx.inf) if additive else mask
    own = own_answers(primals, cotangent, mask=own_mask, hidden_rows="zeros")
    assert_close(own, wanted_answers(primals, cotangent, sees, hidden))


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_causal_rows_before_the_first_key_are_zeros(lengths: tuple[int, int]) -> None:
    primals = inputs(*lengths)
    cotangent = cotangent_of(primals)
    hidden = (np.arange(lengths[0]) < lengths[0] - lengths[1])[:, None]
    own = own_answers(primals, cotangent, mask="causal", hidden_rows="zeros")
    assert_close(own, wanted_answers(primals, cotangent, "causal", hidden))


def test_an_additive_mask_has_finite_gradients() -> None:
    q, k, v = inputs(13, 24)
    mask = mx.where(mx.arange(13)[:, None] == 4, -mx.inf, mx.zeros((13, 24)))

    def loss(mask: mx.array) -> mx.array:
        return flash_attention(q, k, v, scale=SCALE, mask=mask, hidden_rows="zeros").sum()

    gradient = mx.grad(loss)(mask)
    assert mx.isfinite(gradient).all()
    assert not gradient[4].any()


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("mask", [None, "causal", "causal_upper_left", "rows"])
@pytest.mark.parametrize("key_heads", [1, 4])
def test_weights_are_those_of_the_definition(key_heads: int, mask: str | None, sinks: bool) -> None:
    primals = inputs(13, 24, key_heads=key_heads, sinks=sinks)
    q, k, v, *own_sinks = (np.array(x, np.float64) for x in primals)
    sees = {
        None: np.ones((13, 24), bool),
        "causal": np.tri(13, 24, 11, dtype=bool),
        "causal_upper_left": np.tri(13, 24, dtype=bool),
        "rows": np.array(bool_masks()["rows"]),
    }[mask]
    keys, values = (np.repeat(x, 4 // key_heads, axis=1) for x in (k, v))
    scores = np.where(sees, SCALE * q @ keys.swapaxes(-1, -2), HIDDEN)
    if sinks:
        column = np.broadcast_to(own_sinks[0][:, None, None], (*scores.shape[:3], 1))
        scores = np.concatenate([scores, column], axis=-1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights = (weights / weights.sum(-1, keepdims=True))[..., :24]
    weights *= sees.any(-1, keepdims=True)
    out, own = flash_attention(
        *primals[:3],
        scale=SCALE,
        mask=bool_masks()["rows"] if mask == "rows" else mask,
        sinks=primals[3] if sinks else None,
        hidden_rows="zeros",
        return_weights=True,
    )
    assert_close([out, own], [weights @ values, weights])


def test_weights_have_the_type_of_the_call() -> None:
    q, k, v = (x.astype(mx.bfloat16) for x in inputs(13, 24))
    out, weights = flash_attention(q, k, v, scale=SCALE, return_weights=True)
    assert (out.dtype, weights.dtype) == (mx.bfloat16, mx.bfloat16)
    assert weights.shape == (2, 4, 13, 24)


def test_a_route_asked_for_by_name_that_has_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = inputs(13, 24)
    monkeypatch.setenv("MLX_FLASH_ROUTE", "blockwise")
    with pytest.raises(ValueError, match="route blockwise has no weights to return"):
        flash_attention(q, k, v, scale=SCALE, return_weights=True)
    monkeypatch.setenv("MLX_FLASH_ROUTE", "reference")
    flash_attention(q, k, v, scale=SCALE, return_weights=True)


def test_choices_hold_with_flash_attention_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_FLASH_DISABLE", "1")
    q, k, v = inputs(24, 13)
    out = flash_attention(q, k, v, scale=SCALE, mask="causal", hidden_rows="zeros")
    assert not out[:, :, :11].any()
    assert out[:, :, 11:].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_rows": "ones"}, "hidden_rows is 'ones': it must be None or \"zeros\""),
        ({"hidden_rows": "zeros", "mask": "full"}, "mask is 'full'"),
        ({"return_weights": True, "mask": mx.zeros((3, 3))}, r"mask is of shape \(3, 3\)"),
        ({"mask": "causal_upper_left", "sinks": mx.zeros((3,))}, r"sinks is of shape \(3,\)"),
    ],
    ids=str,
)
def test_a_bad_choice_is_named(options: dict[str, Any], message: str) -> None:
    q, k, v = inputs(13, 24)
    with pytest.raises(ValueError, match=message):
        flash_attention(q, k, v, scale=SCALE, **options)
    with pytest.raises(ValueError, match=r"v is None: it must be an mlx\.core\.array"):
        flash_attention(q, k, None, scale=SCALE, mask="causal_upper_left")
