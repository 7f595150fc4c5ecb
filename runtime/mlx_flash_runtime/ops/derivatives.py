"""Derivatives of functions that MLX cannot differentiate, or not any further."""

from __future__ import annotations

import math
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


def with_gradients(
    exact: Callable[..., mx.array],
    attention: Callable[..., list[mx.array]],
    gradients: Callable[..., list[mx.array]],
) -> Callable[..., list[mx.array]]:
    """`attention`, which gives what `exact` does and each query's logsumexp, with the gradient that
    `gradients` makes of its arguments, both outputs and the cotangent of the first. Gradients of
    that gradient, and maps, are those of `exact`."""

    def exact_gradients(*arrays: mx.array) -> list[mx.array]:
        *primals, _, _, cotangent = arrays
        return mx.vjp(exact, primals, [cotangent])[1]

    def exact_outputs(*arrays: mx.array) -> list[mx.array]:
        out = exact(*arrays)
        return [out, mx.zeros(out.shape[:3], mx.float32)]  # nobody is given the second one

    first = with_derivatives_of(exact_gradients, gradients)

    def vjp(
        primals: Sequence[mx.array], cotangents: Sequence[mx.array], outputs: Sequence[mx.array]
    ) -> list[mx.array]:
        return first(*primals, *outputs, cotangents[0])  # type: ignore[no-any-return]

    function = with_derivatives_of(exact_outputs, attention)
    function.vjp(vjp)
    return function  # type: ignore[no-any-return]


def of_sinks(sinks: mx.array, logsumexp: mx.array, delta: mx.array) -> mx.array:
    """The gradient of sinks `[H]`, in float32, by the logsumexp of each query, in units of log(2),
    and its `sum(output * cotangent)`, both `[B, H, L]`.

    A sink takes a share of each query's weight and has no value, so its gradient is `-sum(share *
    delta)` over the queries of its head.
    """
    own = sinks.astype(mx.float32)[:, None] * math.log2(math.e)
    return -mx.sum(mx.power(2.0, own - logsumexp) * delta, axis=(0, 2))
