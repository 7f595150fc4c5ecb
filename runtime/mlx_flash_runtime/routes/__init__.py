"""The routes, cheapest first. A route is a module; none imports another."""

from __future__ import annotations

from typing import Protocol

import mlx.core as mx

from ..problem import Device, Problem
from . import blockwise, native, reference


class Route(Protocol):
    """What the planner and the dispatcher need of a route."""

    @property
    def NAME(self) -> str:
        """The name that reports, `explain` and `MLX_FLASH_ROUTE` use."""

    def accepts(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Whether the route holds for `problem` on `device`, and why or why not (a phrase without the call's sizes)."""

    def block_size(self, problem: Problem, device: Device) -> int | None:
        """The block size it would choose, or None where it has no blocks."""

    def extra_memory(self, problem: Problem, device: Device, block_size: int | None) -> int:
        """Predicted bytes at the peak of one forward call, beyond its inputs and its output."""

    def run(
        self,
        q: mx.array,
        k: mx.array,
        v: mx.array,
        *,
        scale: float,
        mask: mx.array | str | None,
        sinks: mx.array | None,
        block_size: int | None,
    ) -> mx.array:
        """The attention itself, for arguments that `Problem.of` has accepted: `[batch, heads, length,
        value_head_dim]`."""


ROUTES: tuple[Route, ...] = (native, blockwise, reference)
