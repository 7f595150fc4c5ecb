"""The gradient of sinks beside MLX's fused kernel on CUDA, which raises an error when asked for it.

A sink takes part of a query's weight and has no value: with p its weight, out = N / (Z +
exp(sink)) gives d out / d sink = -p out. The forward pass is MLX's, left as it is; the gradient of
the sinks is computed only where someone wants it, as MLX is lazy. A second gradient has it, too,
but takes the sinks as constants in the gradients of q, k and v.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx

from ..ops.online_softmax import sink_weight
from ..problem import Attend, Call, Device, Problem

DOES = "a gradient for its sinks"

# Scores that are computed at once, 1 GiB in float32: more would need more memory, and smaller
# blocks more operations, whose description costs time even where nobody asks for their value.
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
    def output(out: mx.array, sinks: mx.array, q: mx.array, k: mx.array) -> mx.array:
        return out

    rows = max(1, _SCORES * call.problem.query_length // call.problem.score_count)

    def weight(sinks: mx.array, q: mx.array, k: mx.array) -> mx.array:
        """The sinks' share, [B, H, L, 1]."""
        return sink_weight(replace(call, q=q, k=k, sinks=sinks), rows)[..., None]

    def gradient(primals: Sequence[mx.array], cotangent: mx.array, out: mx.array) -> list[mx.array]:
        # `out` is that of the identity rather than its input: a second gradient has to know the
        # sinks in it, too.
        _, sinks, q, k = primals
        product = out.astype(mx.float32) * cotangent.astype(mx.float32)
        towards = mx.sum(product, axis=-1, keepdims=True)
        d_sinks = -mx.sum(weight(sinks, q, k) * towards, axis=(0, 2, 3))
        return [cotangent, d_sinks.astype(sinks.dtype), mx.zeros_like(q), mx.zeros_like(k)]

    def differentiable(out: mx.array, sinks: mx.array, q: mx.array, k: mx.array) -> mx.array:
        """The same in operations whose own derivative is right: sinks minus themselves, as
        constants, is zero."""
        share = mx.stop_gradient(weight(sinks, q, k))
        nothing = (sinks - mx.stop_gradient(sinks)).astype(mx.float32)[:, None, None]
        return (out.astype(mx.float32) * (1 - share * nothing)).astype(out.dtype)

    def tangent(primals: Sequence[mx.array], tangents: Sequence[mx.array | None]) -> mx.array:
        given = []
        for x, dx in zip(primals, tangents, strict=True):
            given.append(mx.zeros_like(x) if dx is None else dx)
        return mx.jvp(differentiable, list(primals), given)[1][0]

    def batched(inputs: Sequence[mx.array], axes: Sequence[int | None]) -> tuple[mx.array, int]:
        return mx.vmap(differentiable, in_axes=tuple(axes))(*inputs), 0

    function = mx.custom_function(output)
    function.vjp(gradient)
    function.jvp(tangent)
    function.vmap(batched)
    return function  # type: ignore[return-value]  # typed in MLX's stubs as returning object
