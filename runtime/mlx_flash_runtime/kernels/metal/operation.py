"""The Metal kernels as an operation of MLX: in training with the gradient of kernels of ours, else
with those of MLX's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import mlx.core as mx

from ... import stock
from ...ops import written_out
from ...ops.derivatives import with_derivatives_of, with_gradients
from ...problem import Launch, Problem, as_float
from ..quantization import Bits
from . import checked, gradient, kernel
from .mask_tiles import Looks


def launch(problem: Problem, looks: Looks | None = None) -> Launch:
    """Attention for calls of `problem`, as a function of MLX's own arguments. MLX's operations run
    instead where the kernel turns out not to, see `checked`, and MLX's own attention for a mask
    that by `looks` hides too little."""
    dtype: mx.Dtype = getattr(mx, problem.dtype)
    takes_mask = kernel.reads_mask(problem)

    def run(q: Any, k: Any, v: Any, *, scale: Any, mask: Any, sinks: Any) -> mx.array:
        factor = as_float(scale)
        if factor is None:  # MLX words the error
            return stock.attention(q, k, v, scale=scale, mask=mask, sinks=sinks)
        arrays = [q.astype(dtype), k.astype(dtype), v.astype(dtype)]
        if takes_mask:
            typed = mask if mask.dtype == mx.bool_ else mask.astype(dtype)
            axes = kernel.broadcast(typed, problem)
            if looks is not None and not looks.hides_enough(mask, axes):
                return stock.attention(q, k, v, scale=scale, mask=mask, sinks=sinks)
            arrays.append(axes)
        if sinks is not None:
            arrays.append(sinks)
        if not checked.is_right(problem):
            return _exact(problem, factor)(*arrays)
        if problem.training:
            return _in_training(problem, factor)(*arrays)[0]
        return _operation(problem, factor)(*arrays)

    return run


def quantized(
    problem: Problem, bits: Bits, scale: float, arrays: Sequence[mx.array]
) -> mx.array | None:
    """Attention over quantized keys and values: `arrays` are q, the three arrays of the keys, those
    of the values, then the mask where `kernel.reads_mask`, of all axes, and sinks if any. None
    where the kernel turns out not to be right."""
    if not checked.is_right(problem, bits):
        return None
    return _operation(problem, scale, bits)(*arrays)


def _exact(problem: Problem, scale: float, bits: Bits | None = None) -> Callable[..., mx.array]:
    """The attention of q, k, v, then mask and sinks if any, in operations that MLX differentiates
    and maps."""

    def attention(*arrays: mx.array) -> mx.array:
        q, keys, values, rest = _parts(arrays, bits)
        k, v = (_dequantized(x, bits) for x in (keys, values))
        mask = rest[0] if kernel.reads_mask(problem) else problem.visible
        sinks = rest[-1] if problem.sinks else None
        return written_out.attention(
            q, k, v, scale=scale, mask=mask, sinks=sinks, softcap=problem.softcap
        )

    return attention


@lru_cache(maxsize=256)
def _operation(problem: Problem, scale: float, bits: Bits | None = None) -> Callable[..., mx.array]:
    def attention(*arrays: mx.array) -> mx.array:
        q, keys, values, rest = _parts(arrays, bits)
        numbers = _numbers(scale, problem.softcap)
        return kernel.attention(problem, [q, *keys, *values, numbers, *rest], bits)[0]

    exact = _exact(problem, scale, bits)
    function: Callable[..., mx.array] = with_derivatives_of(exact, attention)
    return function


@lru_cache(maxsize=256)
def _in_training(problem: Problem, scale: float) -> Callable[..., list[mx.array]]:
    """The attention and each query's logsumexp, as a function of q, k, v, then sinks if any, with
    the gradient of the kernels."""

    def with_numbers(arrays: Sequence[mx.array]) -> list[mx.array]:
        return [*arrays[:3], _numbers(scale, problem.softcap), *arrays[3:]]

    def attention(*arrays: mx.array) -> list[mx.array]:
        return kernel.attention(problem, with_numbers(arrays))

    def gradients(*arrays: mx.array) -> list[mx.array]:
        *primals, out, logsumexp, cotangent = arrays
        outputs = [out, logsumexp]
        found = gradient.gradients(problem, with_numbers(primals), outputs, cotangent)
        return [dx.astype(x.dtype) for dx, x in zip(found, primals, strict=True)]

    return with_gradients(_exact(problem, scale), attention, gradients)


def _parts(
    arrays: Sequence[mx.array], bits: Bits | None
) -> tuple[mx.array, Sequence[mx.array], Sequence[mx.array], Sequence[mx.array]]:
    """q, the arrays of the keys and those of the values, and the others."""
    count = 1 if bits is None else 3
    return (
        arrays[0],
        arrays[1 : 1 + count],
        arrays[1 + count : 1 + 2 * count],
        arrays[1 + 2 * count :],
    )


def _dequantized(arrays: Sequence[mx.array], bits: Bits | None) -> mx.array:
    if bits is None:
        return arrays[0]
    words, scales, biases = arrays
    return mx.dequantize(words, scales, biases, group_size=bits.group_size, bits=bits.bits)


@lru_cache(maxsize=64)
def _numbers(scale: float, softcap: float | None) -> mx.array:
    """Scale and softcap as the kernel reads them: the same array for every call."""
    return mx.array([scale, 1.0 if softcap is None else softcap], mx.float32)
