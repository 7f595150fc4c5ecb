"""Attention as a function of its own, and what the planner would do with a call."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mlx.core as mx

from . import stock
from .control import mlx_is_known
from .patching import patch, state
from .planning.choice import Choice, choose, stock_memory
from .planning.machine import current_device
from .planning.planner import planner_for
from .problem import Device, Problem, fault
from .settings import Settings, checked_block_size, resolve


def flash_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: mx.array | str | None = None,
    sinks: mx.array | None = None,
    block_size: int | None = None,
) -> mx.array:
    """`softmax(scale * q @ k.T + mask) @ v` on the planned route, whether or not MLX is patched.

    q is `[B, H, L, D]`, k `[B, H_kv, S, D]`, v `[B, H_kv, S, D_v]` with H a multiple of H_kv, all
    of one floating type (else of the type that they promote to); the result is `[B, H, L, D_v]`.
    `mask` is None, `"causal"` (the last query aligned with the last key), or an array that
    broadcasts to `[B, H, L, S]`: bool (True is seen) or added to the scores. `sinks` is `[H]`, one
    more score per head that takes weight and has no value. `block_size` as in
    `enable_flash_attention`. A function that is being exported gets MLX's own operations.

    Raises ValueError for a bad `block_size`, and what MLX's own function raises for arguments that
    it rejects.
    """
    settings = _settings(block_size)
    if state.is_paused() or not (settings.enabled and mlx_is_known()):
        return stock.attention(q, k, v, scale=scale, mask=mask, sinks=sinks)
    return planner_for(settings).attend(q, k, v, scale, mask, sinks)


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

    def __str__(self) -> str:
        lines = [f"route {self.route}: {self.reason}"]
        lines += [f"  not {route}: {reason}" for route, reason in self.refused]
        if self.block_size is not None:
            lines.append(f"  block size {self.block_size}")
        ours, stock = mebibytes(self.extra_memory), mebibytes(self.stock_memory)
        lines.append(
            f"  predicted peak memory of the forward pass {ours}, of MLX's own function {stock}"
        )
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
    its output.

    Raises ValueError for a bad `block_size` and for arguments that no attention call can have, and
    says which and why; TypeError for a `device` that is no Device, such as a name.
    """
    problem = q if isinstance(q, Problem) else Problem.of(q, k, v, mask, sinks)
    if problem is None:
        raise ValueError(fault(q, k, v, mask, sinks))
    device = device or current_device()
    if not isinstance(device, Device):
        raise TypeError(f"device is a mlx_flash_runtime.problem.Device, not {device!r}")
    return explanation_of(choose(problem, device, _settings(block_size)))


def explanation_of(choice: Choice) -> Explanation:
    """A choice in words."""
    return Explanation(
        choice.problem,
        choice.device,
        *choice.decision,
        choice.refused,
        choice.block_size,
        choice.extra_memory,
        stock_memory(choice.problem, choice.device),
    )


def mebibytes(count: int) -> str:
    """`count` bytes as `12.5 MiB`."""
    return f"{count / 2**20:,.1f} MiB"


def _settings(block_size: int | None) -> Settings:
    """Those of the patch where it is in place, else those of the environment; `block_size` counts
    before both."""
    planner = patch.active()
    if planner is None:
        return resolve(True, block_size)
    return (
        planner.settings
        if block_size is None
        else replace(planner.settings, block_size=checked_block_size(block_size))
    )
