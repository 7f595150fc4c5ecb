"""What the planner would do with a call, in words."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from .control import settings_in_force
from .ops.work import Work, of_query_blocks, of_stock
from .planning.choice import Choice, choose, stock_memory
from .planning.machine import current_device
from .problem import Device, Problem, fault
from .routes import lowered, metal_kernel


@dataclass(frozen=True)
class Explanation:
    """What the planner would do with one attention call, on which device, and why."""

    problem: Problem
    device: Device
    route: str
    reason: str
    refused: tuple[tuple[str, str], ...]
    block_size: int | None
    extra_memory: int
    stock_memory: int
    stock_work: Work
    lowered_work: Work | None  # of the call as `lowered` rewrites it, where it does
    kernel_work: Work | None  # of our own kernel on Metal, where there is one for the call
    # Of a bool mask's tiles the share that it may leave for that kernel, where each is looked at.
    most_seen: float | None
    blocks_work: Work | None  # of blocks of queries, where that kernel is for training

    def __str__(self) -> str:
        lines = [f"route {self.route}: {self.reason}"]
        lines += [f"  not {route}: {reason}" for route, reason in self.refused]
        if self.block_size is not None:
            lines.append(f"  block size {self.block_size}")
        ours, stock = mebibytes(self.extra_memory), mebibytes(self.stock_memory)
        lines.append(
            f"  predicted peak memory of the forward pass {ours}, of MLX's own function {stock}"
        )
        if self.lowered_work is not None:
            lines.append(f"  counted, rewritten: {self.lowered_work}")
        has_choice = self.kernel_work is not None and self.route != "native"
        if has_choice:
            lines.append(f"  counted, our own kernel: {self.kernel_work}")
        if has_choice and self.most_seen is not None:
            lines.append(
                f"  if the mask hid nothing; it may leave {self.most_seen:.0%} of its tiles"
            )
        if has_choice and self.blocks_work is not None:
            lines.append(f"  counted, blocks of queries: {self.blocks_work}")
        if self.lowered_work is not None or has_choice:
            lines.append(f"  counted, MLX's own function: {self.stock_work}")
        return "\n".join(lines)


def explain(
    q: mx.array | Problem,
    k: mx.array | None = None,
    v: mx.array | None = None,
    *,
    scale: float | None = None,
    mask: mx.array | str | None = None,
    sinks: mx.array | None = None,
    block_size: int | None = None,
    device: Device | None = None,
) -> Explanation:
    """The route that a call would take, why, and why not the routes before it; nothing is computed.

    Takes the arguments of the call (`scale` changes nothing), or a `Problem` alone; `device` is
    the current one unless given. `extra_memory` and `stock_memory` of the answer are the predicted
    peaks in bytes of one forward call, planned and by MLX's own function, beyond its inputs and
    its output; `lowered_work`, `kernel_work` and `stock_work` the products and bytes by which it is
    decided whether to rewrite the call, or to run it on our own kernel for Metal, for a bool mask
    by the elements of each: `most_seen` is the largest share of its tiles that it may leave.
    In training that kernel is to cost less than `blocks_work`, MLX's way in blocks of queries, too.

    Raises ValueError for a bad `block_size` and for arguments that no attention call can have, and
    says which and why; TypeError for a `device` that is no Device, such as a name.
    """
    problem = q if isinstance(q, Problem) else Problem.of(q, k, v, mask, sinks)
    if problem is None:
        raise ValueError(fault(q, k, v, mask, sinks))
    device = device or current_device()
    if not isinstance(device, Device):
        raise TypeError(f"device is a mlx_flash_runtime.problem.Device, not {device!r}")
    return explanation_of(choose(problem, device, settings_in_force(block_size)))


def explanation_of(choice: Choice) -> Explanation:
    """A choice in words."""
    problem, device = choice.problem, choice.device
    can_rewrite = lowered.holds(problem, device)[0]
    has_kernel = metal_kernel.holds(problem, device)[0]
    return Explanation(
        problem,
        device,
        *choice.decision,
        choice.refused,
        choice.block_size,
        choice.extra_memory,
        stock_memory(problem, device),
        of_stock(problem, device),
        lowered.work(problem, device, choice.block_size) if can_rewrite else None,
        metal_kernel.work(problem, device, None) if has_kernel else None,
        metal_kernel.most_seen(problem, device) if has_kernel else None,
        of_query_blocks(problem, device) if has_kernel and problem.training else None,
    )


def mebibytes(count: int) -> str:
    """`count` bytes as `12.5 MiB`."""
    return f"{count / 2**20:,.1f} MiB"
