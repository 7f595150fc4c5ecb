"""MLX's fused kernel, reached by rewriting the call: see `lowerings`."""

from __future__ import annotations

from functools import lru_cache

import mlx.core as mx

from .. import stock
from ..fused import is_fused
from ..lowerings import LOWERINGS, Lowering, window
from ..problem import Call, Device, Problem

NAME = "lowered"


def holds(problem: Problem, device: Device) -> tuple[bool, str]:
    """Where rewritings lead to calls that MLX has a fused kernel for."""
    if problem.training and problem.mask == "additive":
        return False, "MLX's fused kernel has no gradient of a mask, which may be asked for"
    steps = _steps(problem, device)
    if not steps:
        fused, _ = is_fused(problem, device)
        return False, "MLX has a fused kernel as it is" if fused else "no rewriting of it has a fused kernel in MLX"
    return True, "MLX has a fused kernel for it with " + " and ".join(step.DOES for step in steps)


def pays(problem: Problem, device: Device) -> tuple[bool, str]:
    """Where one of the rewritings is known to be worth it."""
    paying = any(step.pays(at, device) for step, at in _path(problem, device, None) or ())
    return paying, "the rewriting saves more than it costs" if paying else "the rewriting costs more than it saves"


def block_size(problem: Problem, device: Device) -> int | None:
    """Queries per chunk of a sliding window; the other rewritings have no blocks."""
    return window.block_size(problem) if problem.window is not None else None


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """What all rewritings copy, as if at once."""
    return sum(step.extra_memory(at, device, block_size) for step, at in _path(problem, device, block_size) or ())


def run(call: Call, block_size: int | None) -> mx.array:
    """The first rewriting, which asks for the others, down to MLX's own call."""
    device = Device.current()

    def attend(call: Call) -> mx.array:
        found = _first(call.problem, device, block_size)
        if found is None:
            return stock.call(call)
        lowering, calls = found
        return lowering.run(call, calls, attend)

    return attend(call)


@lru_cache(maxsize=4096)
def _first(problem: Problem, device: Device, block_size: int | None) -> tuple[Lowering, tuple[Problem, ...]] | None:
    """The first rewriting that leads to fused calls alone, with the calls that it makes."""
    for lowering in LOWERINGS:
        calls = lowering.lower(problem, device, block_size)
        if not isinstance(calls, str) and all(_path(one, device, block_size) is not None for one in calls):
            return lowering, calls
    return None


def _path(problem: Problem, device: Device, block_size: int | None) -> tuple[tuple[Lowering, Problem], ...] | None:
    """Every rewriting with the problem that it is applied to, down to fused calls; None where they lead nowhere."""
    found = _first(problem, device, block_size)
    if found is None:
        return () if is_fused(problem, device)[0] else None
    lowering, calls = found
    path = [(lowering, problem)]
    for one in calls:
        path += [step for step in _path(one, device, block_size) or () if step not in path]
    return tuple(path)


def _steps(problem: Problem, device: Device) -> list[Lowering]:
    """The rewritings, each once, in their order."""
    return list(dict.fromkeys(step for step, _ in _path(problem, device, None) or ()))
