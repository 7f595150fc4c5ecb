"""One attention call with its arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from .arguments import promoted
from .problem import Problem


@dataclass(eq=False, slots=True)  # not frozen, which is slow to make: there is one for every call
class Call:
    """One attention call with its arrays, of the shapes that `problem` says. `mask` is None unless
    the mask reached us as an array."""

    problem: Problem
    q: mx.array
    k: mx.array
    v: mx.array
    scale: float
    mask: mx.array | None = None
    sinks: mx.array | None = None

    @property
    def dtype(self) -> mx.Dtype:
        """The type of the output."""
        return promoted(self.q.dtype, self.k.dtype, self.v.dtype)


# Attention as a function of a call, `[batch, query_heads, query_length, value_head_dim]`.
Attend = Callable[[Call], mx.array]
# The same as a function of MLX's own arguments, `(q, k, v, *, scale, mask, sinks)`: what a
# program's call becomes without a `Call` being made.
Launch = Callable[..., mx.array]


def as_float(scale: object) -> float | None:
    """A scale as MLX takes it, any number or an array of one; None for what MLX rejects, a traced
    array included."""
    try:
        return float(scale) if hasattr(scale, "__float__") else None
    except (TypeError, ValueError, OverflowError):
        return None
