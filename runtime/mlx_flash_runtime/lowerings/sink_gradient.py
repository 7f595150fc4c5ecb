"""The gradient of sinks beside MLX's fused kernel on CUDA, which raises an error when asked for it.

A sink takes part of a query's weight and has no value: with p its weight, out = N / (Z +
exp(sink)) gives d out / d sink = -p out. The forward pass is MLX's, left as it is; the gradient of
the sinks is computed only where someone wants it, as MLX is lazy; so are gradients of gradients,
by a formula that costs as much from the start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx

from ..ops.derivatives import with_derivatives_of
from ..ops.online_softmax import sink_weight
from ..problem import Attend, Call, Device, Problem

DOES = "a gradient for its sinks"

# Scores at once. They are described by few operations, since that costs time even where nobody
# asks for their value.
_SCORES = 2**28


def lower(problem: Problem, device: Device, block_size: int | None) -> tuple[Problem, ...] | str:
    """The problem of a call whose sinks are constants."""
    if not (problem.sinks and problem.training and device.backend == "cuda"):
        return "no gradient of sinks is missing"
    return (replace(problem, sinks=False),)


def pays(problem: Problem, device: Device) -> bool:
    """Always: MLX has an error in its place, or its unfused attention."""
    return True


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """Nothing in a forward call."""
    return 0


def run(call: Call, calls: tuple[Problem, ...], attend: Attend) -> mx.array:
    """The call with constant sinks, then the identity, whose gradient knows the sinks."""
    sinks = call.sinks
    assert sinks is not None
    out = attend(replace(call, problem=calls[0], sinks=mx.stop_gradient(sinks)))
    return _with_gradient(call)(out, sinks, call.q, call.k)


def _with_gradient(call: Call) -> Callable[..., mx.array]:
    """The identity of the first of `out, sinks, q, k`, with the gradients that `out` lacks."""
    rows = max(1, _SCORES * call.problem.query_length // call.problem.score_count)

    def weight(sinks: mx.array, q: mx.array, k: mx.array) -> mx.array:
        """The sinks' share, [B, H, L, 1]."""
        return sink_weight(replace(call, q=q, k=k, sinks=sinks), rows)[..., None]

    def output(out: mx.array, sinks: mx.array, q: mx.array, k: mx.array) -> mx.array:
        return out

    def exact_output(out: mx.array, sinks: mx.array, q: mx.array, k: mx.array) -> mx.array:
        """The same in operations whose derivatives of any order are right: sinks that grow by x
        make N / (Z + exp(sink)) of `out / (1 + p (exp(x) - 1))`, and x is zero here."""
        constant = mx.stop_gradient(sinks)
        grown = mx.expm1((sinks - constant).astype(mx.float32))[:, None, None]
        return (out.astype(mx.float32) / (1 + weight(constant, q, k) * grown)).astype(out.dtype)

    def gradients(
        out: mx.array, sinks: mx.array, q: mx.array, k: mx.array, cotangent: mx.array
    ) -> list[mx.array]:
        """Of `exact_output`: only that of the sinks costs anything."""
        towards = mx.sum(
            out.astype(mx.float32) * cotangent.astype(mx.float32), axis=-1, keepdims=True
        )
        d_sinks = -mx.sum(weight(sinks, q, k) * towards, axis=(0, 2, 3)).astype(sinks.dtype)
        return [cotangent, d_sinks, mx.zeros_like(q), mx.zeros_like(k)]

    def exact_gradients(*primals_and_cotangent: mx.array) -> list[mx.array]:
        *primals, cotangent = primals_and_cotangent
        return mx.vjp(exact_output, primals, [cotangent])[1]

    first = with_derivatives_of(exact_gradients, gradients)
    function = with_derivatives_of(exact_output, output)
    function.vjp(lambda primals, cotangent, _: first(*primals, cotangent))
    return function  # type: ignore[no-any-return]  # MLX's stubs have no type for it
