"""One question, asked per call: which route?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import mlx.core as mx

from .layers import Decision
from .problem import Device, Problem
from .routes import ROUTES, Route, native
from .settings import Settings

# A decoding loop meets a new key length with every token: the cache starts over rather than grow with them.
_CACHED_PLANS = 4096


@dataclass(frozen=True, eq=False)
class Plan:
    """The route of one call, the decision in words, and the reasons against the routes before it.

    `block_size` is None where the route has no blocks; `extra_memory` is the predicted peak of one forward call, in
    bytes beyond its inputs and its output.
    """

    route: Route
    decision: Decision
    refused: tuple[tuple[str, str], ...] = ()
    block_size: int | None = None
    extra_memory: int = 0
    is_native: bool = False


# A call that MLX itself rejects (it words the error), or asks something of MLX that no route describes.
UNPLANNED = Plan(native, Decision(native.NAME, "the arguments are MLX's own to judge"), is_native=True)


def plan(problem: Problem, device: Device, settings: Settings) -> Plan:
    """The first route that holds for `problem` on `device`; the route that `settings` prefers is asked first."""
    refused: list[tuple[str, str]] = []
    for route in sorted(ROUTES, key=lambda route: settings.route != route.NAME):
        holds, reason = route.accepts(problem, device)
        if holds:
            block_size = route.block_size(problem, device)
            if block_size is not None:
                block_size = settings.block_size or block_size
            memory = route.extra_memory(problem, device, block_size)
            decision = Decision(route.NAME, reason)
            return Plan(route, decision, tuple(refused), block_size, memory, is_native=route is native)
        refused.append((route.NAME, reason))
    raise AssertionError("the last route refuses nothing")


class Planner:
    """Plans calls under fixed settings and remembers the plans."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._plans: dict[tuple[object, ...], Plan] = {}
        # With a GPU, either device may be a thread's default at the time of a call.
        self._device_varies = mx.metal.is_available() or mx.cuda.is_available()

    def plan_call(self, q: mx.array, k: mx.array, v: mx.array, mask: object, sinks: object) -> Plan:
        """The plan of one call, whose arguments are those of `mx.fast.scaled_dot_product_attention`, of any type."""
        try:
            # Reading and comparing a type costs as much as the rest: that of q stands for all, until a plan depends on
            # it.
            key: tuple[object, ...] = (q.shape, k.shape, v.shape, q.dtype)
            if mask is not None:
                key += (mask.shape, mask.dtype) if isinstance(mask, mx.array) else (mask,)
            if sinks is not None:
                key += ("sinks",)
            if self._device_varies:
                key += (mx.default_device().type,)
            found = self._plans.get(key)
        except (AttributeError, TypeError):  # no arrays: MLX says so best
            return UNPLANNED
        if found is None:
            if len(self._plans) >= _CACHED_PLANS:
                self._plans.clear()
            found = self._plans[key] = self._plan_anew(q, k, v, mask, sinks)
        elif not found.is_native and not (q.dtype == k.dtype == v.dtype and sinks is None):
            return self._plan_anew(q, k, v, mask, sinks)
        return found

    def _plan_anew(self, q: mx.array, k: mx.array, v: mx.array, mask: object, sinks: object) -> Plan:
        problem = Problem.of(q, k, v, mask, sinks)
        return UNPLANNED if problem is None else plan(problem, Device.current(), self.settings)


@lru_cache(maxsize=64)
def planner_for(settings: Settings) -> Planner:
    """The planner of these settings, with the plans it has made so far."""
    return Planner(settings)
