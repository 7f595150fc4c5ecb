"""MLX's own attention where it has no fused kernel and nothing here is faster."""

from __future__ import annotations

import mlx.core as mx

from .. import stock
from ..crossover import blocks_pay, unfused_memory
from ..fused import is_fused
from ..problem import Call, Device, Problem

NAME = "unfused"


def holds(problem: Problem, device: Device) -> tuple[bool, str]:
    """Any call that MLX knows."""
    if problem.softcap is not None:
        return False, "MLX has no softcapped attention"
    _, reason = is_fused(problem, device)
    return True, f"{reason}, and {blocks_pay(problem, device)[1]}"


def pays(problem: Problem, device: Device) -> tuple[bool, str]:
    """Always: every other route was asked before."""
    return True, "nothing here is faster"


def block_size(problem: Problem, device: Device) -> int | None:
    """None: it has no blocks of ours."""
    return None


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """The scores and their softmax."""
    return unfused_memory(problem)


def run(call: Call, block_size: int | None) -> mx.array:
    """MLX's own function."""
    return stock.call(call)
