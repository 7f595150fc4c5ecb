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
from ..ops.work import Work, copies, of_fused, of_stock
from ..problem import Attend, Call, Device, Problem
from ..stock.fused import error_of, is_fused
from ..stock.memory import scores_fit
from .route import Route

# A rewriting may cost so much of MLX's own way by counting. On Metal, where nothing was measured:
# what is closer than that the count does not tell apart. On CUDA limits that were measured decide,
# but they are those of one rewriting, and several together may come to many times the work.
_MOST = {"metal": 0.9, "cuda": 2.0, "cpu": 0.0}


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

    def work(self, device: Device, block_size: int | None) -> Work:
        """All of it: the calls in the end, and what each rewriting copies for them."""
        if self.lowering is None:
            return of_fused(self.problem, device)
        copied = self.lowering.extra_memory(self.problem, device, block_size)
        total = copies(copied, self.problem)
        for part in self.parts:
            total += part.work(device, block_size)
        return total


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
        """Where all of it, counted, costs less than MLX's own way; on CUDA where one of the
        rewritings was measured to be worth it, unless all together cost far more."""
        too_much = False, "the rewriting costs more than it saves"
        rewritings = _rewritings(problem, device, None)
        is_large = any(lowering.pays(at, device) for lowering, at in rewritings)
        if device.backend == "cuda" and not is_large:
            return too_much
        if error_of(problem, device) is not None:
            return True, "MLX has an error in its place"
        if not (is_fused(problem, device)[0] or scores_fit(problem, device)):
            return True, "its scores would not fit in memory"
        own, lowered = of_stock(problem, device), self.work(problem, device, None)
        if lowered is None or lowered.cost(device) > _MOST[device.backend] * own.cost(device):
            return too_much
        return True, "the rewriting saves more than it costs"

    def work(self, problem: Problem, device: Device, block_size: int | None) -> Work | None:
        """The calls that MLX gets in the end, and the copies around them."""
        step = _step(problem, device, block_size)
        return None if step is None else step.work(device, block_size)

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
