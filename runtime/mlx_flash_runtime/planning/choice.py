"""Which route a problem takes on a device, with the reasons: data, nothing is run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..problem import Device, Problem
from ..routes import ROUTES, Route, native, unfused
from ..settings import Settings
from ..stock.fused import is_fused
from ..stock.memory import scores_fit
from . import calibration
from .counts import Decision


@dataclass(frozen=True)
class Choice:
    """The route of one problem on one device, why it, and why not the routes before it.

    `block_size` is None where the route has no blocks; `extra_memory` is the predicted peak of one
    forward call, in bytes beyond its inputs and its output.
    """

    problem: Problem
    device: Device
    route: Route
    reason: str
    refused: tuple[tuple[str, str], ...]
    block_size: int | None
    extra_memory: int

    @property
    def decision(self) -> Decision:
        """The route's name and the reason for it."""
        return Decision(self.route.name, self.reason)


def choose(problem: Problem, device: Device, settings: Settings) -> Choice:
    """The first route that holds for `problem` on `device` and pays; the route that `settings`
    prefers is asked first, and what was measured on this machine (`mlx-flash tune`) counts before
    what routes say of themselves."""
    measured = _measured(problem, device)
    refused: list[tuple[str, str]] = []
    for route in sorted(ROUTES, key=lambda route: settings.route != route.name):
        ok, reason = route.holds(problem, device)
        if ok and settings.route != route.name:
            if measured is None:
                ok, why = route.pays(problem, device)
                reason = reason if ok else why
            else:
                ok = route is measured
                speed = "to be the fastest" if ok else "slower"
                reason = f"measured {speed} on this machine"
        if ok:
            block_size = route.block_size(problem, device)
            if block_size is not None:
                block_size = settings.block_size or block_size
            memory = route.extra_memory(problem, device, block_size)
            return Choice(problem, device, route, reason, tuple(refused), block_size, memory)
        refused.append((route.name, reason))
    raise AssertionError("the last route refuses nothing")


def _measured(problem: Problem, device: Device) -> Route | None:
    """The route that was measured to be the fastest for the problem's class, if it holds for this
    one of them."""
    name = calibration.route_of(problem, device)
    if name is None:
        return None
    if name == calibration.STOCK:
        route: Route | None = native if is_fused(problem, device)[0] else unfused
        # The class has larger problems than the measured one.
        if route is unfused and not scores_fit(problem, device):
            return None
    else:
        route = next((route for route in ROUTES if name == route.name), None)
    return route if route is not None and route.holds(problem, device)[0] else None


def stock_memory(problem: Problem, device: Device) -> int:
    """Predicted bytes of MLX's own function at the peak of a forward call, beyond its inputs and
    its output."""
    route: Route = native if is_fused(problem, device)[0] else unfused
    return route.extra_memory(problem, device, None)


def candidates(problem: Problem, device: Device) -> Iterator[tuple[Route, int | None]]:
    """Every route that holds for `problem` on `device`, in their order, with its block size."""
    for route in ROUTES:
        if route.holds(problem, device)[0]:
            yield route, route.block_size(problem, device)
