"""MLX's own attention as it is: wherever MLX has a fused kernel, and wherever nothing here is faster."""

from __future__ import annotations

import mlx.core as mx

from .. import stock
from ..crossover import blocks_pay, unfused_memory
from ..fused import forward_is_fused
from ..problem import Device, Problem

NAME = "native"


def accepts(problem: Problem, device: Device) -> tuple[bool, str]:
    """Unless MLX is unfused for `problem` and blocks pay."""
    fused, reason = forward_is_fused(problem, device)
    if fused:
        return True, reason
    pay, why = blocks_pay(problem, device)
    return not pay, f"{reason}, and {why}"


def block_size(problem: Problem, device: Device) -> int | None:
    """None: it has no blocks of ours."""
    return None


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """The scores where MLX is unfused, else nothing."""
    fused, _ = forward_is_fused(problem, device)
    return 0 if fused else unfused_memory(problem)


def run(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: mx.array | str | None,
    sinks: mx.array | None,
    block_size: int | None,
) -> mx.array:
    """MLX's own function."""
    return stock.attention(q, k, v, scale=scale, mask=mask, sinks=sinks)
