"""MLX's own function, under the three names that say which of its ways a call takes.

`native` is its fused kernel as it is, which nothing here gets in the way of. `forced` is a fused
kernel that MLX has but does not take by itself, for speed. `unfused` is everything else: a graph of
products and a softmax, whose scores are in memory.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from .. import stock
from ..ops.crossover import blocks_pay
from ..problem import Attend, Call, Device, Launch, Problem
from ..stock.fused import error_of, is_fused, is_fused_if_forced
from ..stock.memory import scores_fit, unfused_memory
from .route import Route


class _MlxItself(Route):
    """MLX's own function with the arguments of the call."""

    is_stock = True
    judges_the_rest = True

    def launch(
        self,
        problem: Problem,
        device: Device,
        block_size: int | None,
        in_gradient: Callable[[], Launch] | None = None,
    ) -> Launch:
        """MLX's own function: right for whatever arguments, as MLX judges them."""
        return stock.attention


class Native(_MlxItself):
    """MLX's fused kernel, wherever it has one."""

    name = "native"

    def holds(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Where MLX has a fused kernel."""
        return is_fused(problem, device)

    def pays(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Always."""
        return True, "MLX's own fused kernel is the fastest known"

    def extra_memory(self, problem: Problem, device: Device, block_size: int | None) -> int:
        """A mask, where MLX spreads a bool mask over batch and heads as numbers to add."""
        is_bool = problem.has_array_mask and problem.mask != "additive"
        spread = device.backend == "cuda" and is_bool
        return problem.item_bytes * problem.score_count if spread else 0


class Unfused(_MlxItself):
    """MLX's graph of operations, where it has no fused kernel and nothing here is faster."""

    name = "unfused"
    improves = False

    def holds(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Any call that MLX knows and has no error for."""
        if problem.softcap is not None:
            return False, "MLX has no softcapped attention"
        _, reason = is_fused(problem, device)
        if error_of(problem, device) is not None:
            return False, reason
        return True, f"{reason}, and {blocks_pay(problem, device)[1]}"

    def pays(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Always: every other route was asked before."""
        return True, "nothing here is faster"

    def extra_memory(self, problem: Problem, device: Device, block_size: int | None) -> int:
        """The scores and their softmax."""
        return unfused_memory(problem)


class Forced(Route):
    """MLX's fused kernel where MLX takes its unfused way for speed, but the scores would not fit in
    memory."""

    name = "forced"

    def holds(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Where MLX has a fused kernel that it does not take by itself."""
        if is_fused_if_forced(problem, device):
            return True, "MLX's fused kernel for this head dim needs no memory for scores"
        return False, "MLX has no fused kernel that it would have to be forced to"

    def pays(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Where the scores do not fit: MLX's unfused way is the faster one as long as they do."""
        if scores_fit(problem, device):
            return False, "MLX's unfused way is faster as long as its scores fit in memory"
        return True, "its scores would not fit in memory"

    def attend(self, problem: Problem, device: Device, block_size: int | None) -> Attend:
        """MLX's own function, told to."""

        def forced(call: Call) -> mx.array:
            return stock.call(call, force_fused=True)

        return forced


native, unfused, forced = Native(), Unfused(), Forced()
