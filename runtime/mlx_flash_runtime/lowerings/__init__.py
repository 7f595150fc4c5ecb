"""Exact rewritings of an attention call into calls that MLX has a fused kernel for, as a compiler
lowers operations.

A lowering is a module with two functions: what it makes of a problem (or why it does nothing), and
the same for arrays. They are tried in order and applied one after the other; none imports another.
Everything is made of differentiable MLX operations around MLX's own call, so gradients, vmap and
compilation are MLX's own.
"""

from __future__ import annotations

from typing import Protocol

import mlx.core as mx

from ..problem import Attend, Call, Device, Problem
from . import (
    additive_mask,
    padded_head_dim,
    padded_length,
    prefix,
    recent_keys,
    segments,
    sink_gradient,
    sink_key,
    window,
)


class Lowering(Protocol):
    """What the route `lowered` needs of a lowering."""

    @property
    def DOES(self) -> str:
        """What is done to the call, as it completes "fused with ..."."""

    def lower(
        self, problem: Problem, device: Device, block_size: int | None
    ) -> tuple[Problem, ...] | str:
        """The problems of the calls that it makes, in their order, or why it makes none."""

    def pays(self, problem: Problem, device: Device) -> bool:
        """Whether it is large enough, as measured on CUDA, to be worth its copies and kernels where
        it leads to a fused one."""

    def extra_memory(self, problem: Problem, device: Device, block_size: int | None) -> int:
        """Bytes of what it copies, pads or builds in a forward call."""

    def run(self, call: Call, calls: tuple[Problem, ...], attend: Attend) -> mx.array:
        """`call` by way of `attend`, asked for `calls`, which is the answer of `lower`."""


LOWERINGS: tuple[Lowering, ...] = (
    segments,
    prefix,
    recent_keys,
    window,
    sink_key,
    padded_head_dim,
    padded_length,
    additive_mask,
    sink_gradient,
)
