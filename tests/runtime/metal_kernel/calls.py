"""What the tests of both Metal kernels say of a call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx
from backends import METAL

DEVICE = replace(METAL, own_kernel=True)


def mlx(*args: Any, **kwargs: Any) -> mx.array:
    return mx.fast.scaled_dot_product_attention(*args, **kwargs)


def sizes(head_dim: int, value_head_dim: int | None = None) -> dict[str, int]:
    return {"head_dim": head_dim, "value_head_dim": value_head_dim or head_dim}
