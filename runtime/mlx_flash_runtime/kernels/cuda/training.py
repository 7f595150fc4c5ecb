"""The CUDA kernels as an operation with a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import mlx.core as mx

from ... import stock
from ...ops import written_out
from ...ops.derivatives import with_gradients
from ...problem import Problem, as_float, promoted
from ...stock.vmap import is_mapped
from . import attention, gradient
from .arguments import reads_mask
from .launcher import scale_array


class Training:
    """Attention for calls of `problem` on a GPU of compute capability `capability`, as a function
    of MLX's own arguments: `run`. It is for calls that are part of a gradient, which the kernels
    make; gradients of that gradient are those of MLX's operations.

    MLX's operations run instead on the CPU where that is the default device, for arrays of other
    types, inside of `mx.vmap`, which no custom kernel has, and where the kernels do not compile.
    """

    def __init__(self, problem: Problem, capability: tuple[int, int]) -> None:
        self._problem = problem
        self._capability = capability
        self._dtype: mx.Dtype = getattr(mx, problem.dtype)

    def run(self, q: Any, k: Any, v: Any, *, scale: Any, mask: Any, sinks: Any) -> mx.array:
        """The attention, `[batch, query_heads, query_length, value_head_dim]`."""
        factor = as_float(scale)
        if factor is None:  # MLX words the error
            return stock.attention(q, k, v, scale=scale, mask=mask, sinks=sinks)
        arrays = [q, k, v]
        if reads_mask(self._problem):
            arrays.append(mask)
        if sinks is not None:
            arrays.append(sinks)
        if not self._takes(q, k, v):
            return _exact(self._problem, factor)(*arrays)
        return _differentiable(self._problem, self._capability, factor)(*arrays)[0]

    def _takes(self, q: mx.array, k: mx.array, v: mx.array) -> bool:
        problem, capability = self._problem, self._capability
        # Without a GPU this is a test, whose kernels are none.
        if mx.default_device().type != mx.DeviceType.gpu and mx.cuda.is_available():
            return False
        if is_mapped():
            return False
        values = problem.batch, problem.key_heads, problem.key_length, problem.value_head_dim
        if promoted(q.dtype, k.dtype, v.dtype) != self._dtype or v.shape != values:
            return False
        return attention.is_there(problem, capability) and gradient.is_there(problem, capability)


def _exact(problem: Problem, scale: float) -> Callable[..., mx.array]:
    """The attention of q, k, v, then mask and sinks if the kernel reads any, in operations that MLX
    differentiates and maps any number of times."""

    def attention(*arrays: mx.array) -> mx.array:
        q, k, v, *rest = arrays
        mask = rest[0] if reads_mask(problem) else problem.visible
        sinks = rest[-1] if problem.sinks else None
        return written_out.attention(q, k, v, scale=scale, mask=mask, sinks=sinks)

    return attention


@lru_cache(maxsize=256)
def _differentiable(
    problem: Problem, capability: tuple[int, int], scale: float
) -> Callable[..., list[mx.array]]:
    """The attention and each query's logsumexp, as a function of q, k, v, then mask and sinks if
    the kernel reads any."""
    exact = _exact(problem, scale)

    def with_scale(arrays: Sequence[mx.array]) -> list[mx.array]:
        return [*arrays[:3], scale_array(scale), *arrays[3:]]

    def forward(*arrays: mx.array) -> list[mx.array]:
        return attention.attention(problem, capability, with_scale(arrays))

    def backward(*arrays: mx.array) -> list[mx.array]:
        *primals, out, logsumexp, cotangent = arrays
        dq, dk, dv, d_sinks = gradient.gradients(
            problem, capability, with_scale(primals), [out, logsumexp], cotangent
        )
        found = [dq, dk, dv]
        if reads_mask(problem):
            found.append(_of_mask(exact, primals, cotangent))
        if d_sinks is not None:
            found.append(d_sinks)
        return [dx.astype(x.dtype) for dx, x in zip(found, primals, strict=True)]

    return with_gradients(exact, forward, backward)


def _of_mask(
    exact: Callable[..., mx.array], primals: Sequence[mx.array], cotangent: mx.array
) -> mx.array:
    """The gradient of a mask. That of one that is added has as many numbers as there are scores, so
    it is of MLX's operations, and computed only where it is asked for, as MLX is lazy."""
    mask = primals[3]
    if mask.dtype == mx.bool_:
        return mx.zeros_like(mask)

    def of_mask(mask: mx.array) -> mx.array:
        return exact(*primals[:3], mask, *primals[4:])

    return mx.vjp(of_mask, [mask], [cotangent])[1][0]
