"""The routes, in the order in which they are asked. A route is a module; none imports another."""

from __future__ import annotations

from typing import Protocol

import mlx.core as mx

from ..problem import Call, Device, Problem
from . import blockwise, cpu_kernel, cuda_kernel, forced, lowered, native, query_blocks, reference, unfused


class Route(Protocol):
    """What the planner and the dispatcher need of a route."""

    @property
    def NAME(self) -> str:
        """The name that reports, `explain` and `MLX_FLASH_ROUTE` use."""

    def holds(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Whether the route can run `problem` on `device`, exactly, and why or why not (a phrase without sizes)."""

    def pays(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Whether it is faster, where it holds, than the routes that are asked after it, or needed for memory; and the
        reason in a phrase. A calibration of this machine (`mlx-flash tune`) knows better."""

    def block_size(self, problem: Problem, device: Device) -> int | None:
        """The block size it would choose, or None where it has no blocks."""

    def extra_memory(self, problem: Problem, device: Device, block_size: int | None) -> int:
        """Predicted bytes at the peak of one forward call, beyond its inputs and its output."""

    def run(self, call: Call, block_size: int | None) -> mx.array:
        """The attention itself, `[batch, query_heads, query_length, value_head_dim]`."""


ROUTES: tuple[Route, ...] = (
    cuda_kernel,
    lowered,
    native,
    forced,
    cpu_kernel,
    query_blocks,
    blockwise,
    unfused,
    reference,
)
