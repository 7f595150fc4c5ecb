"""MLX's fused kernel where MLX takes its unfused way for speed, but the scores would not fit in memory."""

from __future__ import annotations

import mlx.core as mx

from .. import stock
from ..crossover import scores_fit
from ..fused import is_fused_if_forced
from ..problem import Call, Device, Problem

NAME = "forced"


def holds(problem: Problem, device: Device) -> tuple[bool, str]:
    """Where MLX has a fused kernel that it does not take by itself."""
    if is_fused_if_forced(problem, device):
        return True, "MLX's fused kernel for this head dim needs no memory for scores"
    return False, "MLX has no fused kernel that it would have to be forced to"


def pays(problem: Problem, device: Device) -> tuple[bool, str]:
    """Where the scores do not fit: MLX's unfused way is the faster one as long as they do."""
    if scores_fit(problem, device):
        return False, "MLX's unfused way is faster as long as its scores fit in memory"
    return True, "its scores would not fit in memory"


def block_size(problem: Problem, device: Device) -> int | None:
    """None: it has no blocks of ours."""
    return None


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """Nothing."""
    return 0


def run(call: Call, block_size: int | None) -> mx.array:
    """MLX's own function, told to."""
    return stock.call(call, force_fused=True)
