"""The route of a call on a device, with the reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import mlx.core as mx

from . import calibration
from .crossover import scores_fit
from .fused import is_fused
from .layers import Decision, Kind
from .mla import may_be_rope_scores
from .problem import Call, Device, Problem
from .routes import ROUTES, Route, cuda_kernel, native, reference, unfused
from .settings import Settings


@dataclass(frozen=True, eq=False)
class Plan:
    """The route of one call, the decision in words, and the reasons against the routes before it.

    `kind` is what the call counts as. `block_size` is None where the route has no blocks; `extra_memory` is the
    predicted peak of one forward call, in bytes beyond its inputs and its output. `in_training` is the plan for when a
    gradient is traced, where that is another one. `is_native` says that MLX's own function gets the arguments as they
    are, unless `may_be_mla` says that their mask may be rope scores, see `mla`. `kernel` is the function of the CUDA
    kernel's route, which needs no `Call`. `calls` numbers those that were looked up in `Planner.known`.
    """

    route: Route
    kind: Kind
    problem: Problem | None = None
    refused: tuple[tuple[str, str], ...] = ()
    block_size: int | None = None
    extra_memory: int = 0
    is_native: bool = False
    may_be_mla: bool = False
    in_training: Plan | None = None
    kernel: cuda_kernel.ByScale | None = None
    calls: Iterator[int] = field(default_factory=partial(count, 1))

    @property
    def is_quick(self) -> bool:
        """Whether a function that looks at the arrays itself runs it, in a gradient as outside."""
        return self.in_training is None and (self.is_native or self.kernel is not None)

    @property
    def decision(self) -> Decision:
        """The route's name and the reason for it."""
        return self.kind.decision

    @property
    def is_ours(self) -> bool:
        """Whether it is better than MLX's unfused attention, known so rather than for lack of anything else."""
        return self.problem is not None and self.route not in (unfused, reference)

    def run(
        self,
        q: mx.array,
        k: mx.array,
        v: mx.array,
        *,
        scale: float,
        mask: mx.array | str | None = None,
        sinks: mx.array | None = None,
    ) -> mx.array:
        """The call by this plan, whose problem is that of the arguments."""
        assert self.problem is not None
        array = mask if isinstance(mask, mx.array) and self.problem.has_array_mask else None
        if self.kernel is not None:
            return self.kernel[scale](q, k, v, *(x for x in (array, sinks) if x is not None))
        return self.route.run(Call(self.problem, q, k, v, scale, array, sinks), self.block_size)


def as_float(scale: object) -> float | None:
    """A scale as MLX takes it, any number or an array of one; None for what MLX rejects, a traced array included."""
    try:
        return float(scale) if hasattr(scale, "__float__") else None
    except (TypeError, ValueError, OverflowError):
        return None


# A call that MLX itself rejects (it words the error), or asks something of MLX that no route describes.
UNPLANNED = Plan(native, Kind("unknown", native.NAME, "the arguments are MLX's own to judge"), is_native=True)


def plan(problem: Problem, device: Device, settings: Settings) -> Plan:
    """The first route that holds for `problem` on `device` and pays; the route that `settings` prefers is asked first,
    and what was measured on this machine (`mlx-flash tune`) counts before what routes say of themselves."""
    measured = _measured(problem, device)
    refused: list[tuple[str, str]] = []
    for route in sorted(ROUTES, key=lambda route: settings.route != route.NAME):
        ok, reason = route.holds(problem, device)
        if ok and settings.route != route.NAME:
            if measured is None:
                ok, why = route.pays(problem, device)
                reason = reason if ok else why
            else:
                ok = route is measured
                reason = "measured to be the fastest on this machine" if ok else "measured slower on this machine"
        if ok:
            return _chosen(route, reason, problem, device, settings, tuple(refused))
        refused.append((route.NAME, reason))
    raise AssertionError("the last route refuses nothing")


def _measured(problem: Problem, device: Device) -> Route | None:
    """The route that was measured to be the fastest for the problem's class, if it holds for this one of them."""
    name = calibration.route_of(problem, device)
    if name is None:
        return None
    if name == calibration.STOCK:
        route: Route | None = native if is_fused(problem, device)[0] else unfused
        if route is unfused and not scores_fit(problem, device):  # the class has larger problems than the measured one
            return None
    else:
        route = next((route for route in ROUTES if name == route.NAME), None)
    return route if route is not None and route.holds(problem, device)[0] else None


def stock_memory(problem: Problem, device: Device) -> int:
    """Predicted bytes of MLX's own function at the peak of a forward call, beyond its inputs and its output."""
    route: Route = native if is_fused(problem, device)[0] else unfused
    return route.extra_memory(problem, device, None)


def candidates(problem: Problem, device: Device, block_size: int | None = None) -> Iterator[tuple[Route, int | None]]:
    """Every route that holds for `problem` on `device`, in their order, with its block size: `block_size` where it has
    blocks at all and one is given."""
    for route in ROUTES:
        if route.holds(problem, device)[0]:
            own = route.block_size(problem, device)
            yield route, own if own is None else block_size or own


def _chosen(
    route: Route,
    reason: str,
    problem: Problem,
    device: Device,
    settings: Settings,
    refused: tuple[tuple[str, str], ...],
) -> Plan:
    block_size = route.block_size(problem, device)
    if block_size is not None:
        block_size = settings.block_size or block_size
    memory = route.extra_memory(problem, device, block_size)
    return Plan(
        route,
        Kind(problem.phase, route.NAME, reason),
        problem,
        refused,
        block_size,
        memory,
        is_native=route in (native, unfused),
        may_be_mla=may_be_rope_scores(problem),
        kernel=cuda_kernel.ByScale(problem) if route is cuda_kernel else None,
    )
