"""`explain` says which argument is wrong, how, and what would be right."""

from __future__ import annotations

import re
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_flash_runtime import explain

Q, K = mx.zeros((2, 4, 24, 16)), mx.zeros((2, 2, 30, 16))

FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"k": None}, "k is None: it must be an mlx.core.array of 4 axes"),
    ({"q": np.zeros((2, 4, 24, 16))}, "q is a numpy.ndarray: it must be an mlx.core.array"),
    ({"v": [[[[0.0]]]]}, "v is a list: it must be"),
    (
        {"q": Q[0]},
        "q is of shape (4, 24, 16): it must have 4 axes, [batch, heads, length, head dim]",
    ),
    ({"k": K[:, :, :0]}, "k is of shape (2, 2, 0, 16), which is empty"),
    ({"k": K[:1], "v": K[:1]}, "k has a batch of 1, q one of 2"),
    ({"v": K[:1]}, "v has a batch of 1, q one of 2"),
    ({"k": K[..., :8]}, "k has head dim 8, q 16"),
    ({"v": K[:, :1]}, "v has 1 heads, k 2"),
    ({"v": K[:, :, :24]}, "v has length 24, k 30"),
    ({"q": Q[:, :3]}, "q has 3 heads, which is no multiple of the 2 heads of k and v"),
    ({"q": Q.astype(mx.int32)}, "q, k and v are of types int32, float32 and float32: they must be"),
    ({"v": K.astype(mx.complex64)}, "types float32, float32 and complex64"),
    ({"mask": "full"}, "mask is 'full': it must be None, \"causal\" or an mlx.core.array"),
    ({"mask": True}, "mask is a bool: it must be None"),
    ({"mask": mx.zeros((24, 31))}, "mask is of shape (24, 31), which does not broadcast to the"),
    ({"mask": mx.zeros((1, 1, 1, 24, 30))}, "scores' (2, 4, 24, 30)"),
    ({"mask": mx.zeros((24, 30), mx.complex64)}, "mask is of type complex64, which does not"),
    ({"sinks": [0.0] * 4}, "sinks is a list: it must be None or an mlx.core.array"),
    ({"sinks": mx.zeros((2,))}, "sinks is of shape (2,): it must be (4,), one number a head of q"),
    ({"sinks": mx.zeros((4,), mx.complex64)}, "sinks is of type complex64, which does not promote"),
]


@pytest.mark.parametrize(("wrong", "words"), FAULTS)
def test_what_is_wrong_with_which_argument(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        explain(**{"q": Q, "k": K, "v": K, **wrong})


def test_the_types_are_told_as_they_promote() -> None:
    half = [x.astype(mx.float16) for x in (Q, K, K)]
    with pytest.raises(ValueError, match=r"mask is of type float32, .* float16 of q, k and v"):
        explain(*half, mask=mx.zeros((24, 30)))
