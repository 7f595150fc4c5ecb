"""MLX's fused kernel, reached by rewriting the call: see `lowerings`.

What is infinite or NaN spreads as that kernel lets it; where a rewriting leaves keys out, such as
those of another document, what is in them does not spread at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import mlx.core as mx

from .. import stock
from ..lowerings import LOWERINGS, Lowering, window
from ..problem import Attend, Call, Device, Problem
from ..stock.fused import is_fused
from .route import Route


@dataclass(frozen=True, eq=False)
class _Step:
    """How a problem becomes calls that MLX fuses: by a rewriting into problems of which each has
    its own step; without one where MLX fuses it as it is."""

    problem: Problem
    lowering: Lowering | None = None
    parts: tuple[_Step, ...] = ()

    def rewritings(self) -> Iterator[tuple[Lowering, Problem]]:
        """Every rewriting with the problem that it is applied to."""
        if self.lowering is not None:
            yield self.lowering, self.problem
        for part in dict.fromkeys(self.parts):
            yield from part.rewritings()


class Lowered(Route):
    """Exact rewritings, one after the other, down to MLX's own call."""

    name = "lowered"

    def holds(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Where rewritings lead to calls that MLX has a fused kernel for."""
        if problem.training and problem.mask == "additive":
            return False, "MLX's fused kernel has no gradient of a mask, which may be asked for"
        step = _step(problem, device, None)
        if step is None:
            return False, "no rewriting of it has a fused kernel in MLX"
        if step.lowering is None:
            return False, "MLX has a fused kernel as it is"
        done = dict.fromkeys(lowering.DOES for lowering, _ in step.rewritings())
        return True, "MLX has a fused kernel for it with " + " and ".join(done)

    def pays(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Where one of the rewritings is known to be worth it."""
        for lowering, at in _rewritings(problem, device, None):
            if lowering.pays(at, device):
                return True, "the rewriting saves more than it costs"
        return False, "the rewriting costs more than it saves"

    def block_size(self, problem: Problem, device: Device) -> int | None:
        """Queries per chunk of a sliding window; the other rewritings have no blocks."""
        return window.block_size(problem) if problem.window is not None else None

    def extra_memory(self, problem: Problem, device: Device, block_size: int | None) -> int:
        """What all rewritings copy, as if at once."""
        total = 0
        for lowering, at in _rewritings(problem, device, block_size):
            total += lowering.extra_memory(at, device, block_size)
        return total

    def attend(self, problem: Problem, device: Device, block_size: int | None) -> Attend:
        """The first rewriting, which asks for the others, down to MLX's own call."""
        step = _step(problem, device, block_size)
        return stock.call if step is None else _attend_by(step)


def _attend_by(step: _Step) -> Attend:
    lowering, calls = step.lowering, tuple(part.problem for part in step.parts)
    if lowering is None:
        return stock.call
    by_problem = {part.problem: _attend_by(part) for part in dict.fromkeys(step.parts)}

    def attend_part(call: Call) -> mx.array:
        return by_problem[call.problem](call)

    def attend(call: Call) -> mx.array:
        return lowering.run(call, calls, attend_part)

    return attend


def _rewritings(
    problem: Problem, device: Device, block_size: int | None
) -> list[tuple[Lowering, Problem]]:
    step = _step(problem, device, block_size)
    return [] if step is None else list(dict.fromkeys(step.rewritings()))


@lru_cache(maxsize=1024)  # planning asks several times for each problem, and for like parts
def _step(problem: Problem, device: Device, block_size: int | None) -> _Step | None:
    """The first rewriting that leads to fused calls alone, with the steps of the calls that it
    makes; None where no rewriting does."""
    for lowering in LOWERINGS:
        calls = lowering.lower(problem, device, block_size)
        if isinstance(calls, str):
            continue
        parts = [_step(call, device, block_size) for call in calls]
        if None not in parts:
            return _Step(problem, lowering, tuple(part for part in parts if part is not None))
    return _Step(problem) if is_fused(problem, device)[0] else None


lowered = Lowered()
