"""Derivatives of functions that MLX cannot differentiate, or not any further."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx


def with_derivatives_of(exact: Callable[..., Any], function: Callable[..., Any]) -> Any:
    """`function`, which gives the same numbers as `exact` for less, differentiated and mapped as
    `exact` is."""

    def listed(outputs: Any) -> list[mx.array]:
        return [outputs] if isinstance(outputs, mx.array) else list(outputs)

    def vjp(primals: Sequence[mx.array], cotangents: Any, _: Any) -> list[mx.array]:
        return mx.vjp(exact, list(primals), listed(cotangents))[1]

    def jvp(primals: Sequence[mx.array], tangents: Sequence[mx.array | None]) -> Any:
        given = [
            mx.zeros_like(x) if dx is None else dx for x, dx in zip(primals, tangents, strict=True)
        ]
        outputs = mx.jvp(exact, list(primals), given)[1]
        return outputs[0] if len(outputs) == 1 else outputs

    def vmap(inputs: Sequence[mx.array], axes: Sequence[int | None]) -> tuple[Any, Any]:
        outputs = mx.vmap(exact, in_axes=tuple(axes))(*inputs)
        return outputs, 0 if isinstance(outputs, mx.array) else [0] * len(outputs)

    custom = mx.custom_function(function)
    custom.vjp(vjp)
    custom.jvp(jvp)
    custom.vmap(vmap)
    return custom
