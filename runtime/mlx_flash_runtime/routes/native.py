"""MLX's own fused kernel as it is: never get in its way."""

from __future__ import annotations

import mlx.core as mx

from .. import stock
from ..fused import is_fused
from ..problem import Call, Device, Problem

NAME = "native"


def holds(problem: Problem, device: Device) -> tuple[bool, str]:
    """Where MLX has a fused kernel."""
    return is_fused(problem, device)


def pays(problem: Problem, device: Device) -> tuple[bool, str]:
    """Always."""
    return True, "MLX's own fused kernel is the fastest known"


def block_size(problem: Problem, device: Device) -> int | None:
    """None: it has no blocks of ours."""
    return None


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """A mask, where MLX spreads a bool mask over batch and heads as numbers to add."""
    spread = device.backend == "cuda" and problem.has_array_mask and problem.mask != "additive"
    return problem.item_bytes * problem.score_count if spread else 0


def run(call: Call, block_size: int | None) -> mx.array:
    """MLX's own function."""
    return stock.call(call)
