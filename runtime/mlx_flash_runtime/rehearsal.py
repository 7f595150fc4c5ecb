"""A model's attention calls on a device that need not be here, without computing anything.

MLX is lazy: a model that runs on attention that gives zeros only describes its layers. It runs inside `mx.compile`,
where MLX refuses to compute what depends on the inputs, so that a model which needs its own numbers (dbrx chooses its
experts by them) is an error rather than gigabytes of random weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import mlx.core as mx

from . import layers, patch
from .layers import Decision, Kind
from .plan import Plan
from .planner import Planner
from .problem import Call, Device, Problem
from .routes import Route
from .settings import Settings
from .softcap import HAND_WRITTEN


class NotLazy(Exception):
    """The model needs computed numbers to say what it would compute."""


@dataclass(frozen=True)
class LayerCalls:
    """A distinct attention call: its plan, and by name and class the layers that make it."""

    plan: Plan
    layers: tuple[tuple[str, str], ...]

    @property
    def problem(self) -> Problem:
        """What the layers call for."""
        assert self.plan.problem is not None
        return self.plan.problem

    @property
    def decision(self) -> Decision:
        """The route that the layers take and why, or that they keep the attention that the model has of its own."""
        return HAND_WRITTEN if self.problem.softcap is not None and not self.plan.is_ours else self.plan.decision


def rehearse(
    steps: Sequence[Callable[[mx.array], object]],
    shape: tuple[int, int],
    device: Device,
    settings: Settings,
    *,
    training: bool = False,
) -> list[list[LayerCalls]]:
    """The distinct attention calls of each step, in the order in which they are first made, as they would be planned on
    `device`. A step runs a model on tokens of `shape`, lazily; one may go on with the caches of the one before.

    Starts the counts of the report over. Raises NotLazy, and whatever a step raises.
    """
    planner = _Rehearsal(settings, device, training)
    found: list[list[LayerCalls]] = []

    def run(tokens: mx.array) -> mx.array:
        for step in steps:
            layers.forget()
            step(tokens)
            found.append(planner.calls())
        return tokens

    before = patch.active()
    patch.install(planner)
    try:
        mx.compile(run)(mx.zeros(shape, mx.int32))
    except ValueError as error:
        if not str(error).startswith("[eval]"):
            raise
        raise NotLazy("it has to compute numbers to know which of its parts run") from error
    finally:
        patch.uninstall()
        if before is not None:
            patch.install(before)
        layers.forget()
    return found


def _zeros(call: Call, block_size: int | None) -> mx.array:
    """In the place of attention: zeros of the right shape, which nobody computes."""
    return mx.zeros((*call.q.shape[:3], call.v.shape[3]), call.q.dtype)


_NOTHING = cast(Route, SimpleNamespace(NAME="rehearsed", run=_zeros))


@dataclass(frozen=True, eq=False)
class _Rehearsed(Plan):
    """Stands for the plan of that number, and has nothing computed."""

    is_ours: bool = True


class _Rehearsal(Planner):
    """Remembers its plans and numbers them; layers are counted by the number, in the place of a route."""

    def __init__(self, settings: Settings, device: Device, training: bool) -> None:
        super().__init__(settings, device, training)
        self.numbered: list[Plan] = []

    def _planned(self, problem: Problem, mask: object) -> Plan:
        found = super()._planned(problem, mask)
        self.numbered.append(found)
        kind = Kind(found.kind.phase, str(len(self.numbered) - 1), "")
        # Gemma 2 would write out its own attention, layer by layer, where the plan is not ours.
        is_ours = found.is_ours or problem.softcap is not None
        return _Rehearsed(_NOTHING, kind, problem, may_be_mla=found.may_be_mla, is_ours=is_ours)

    def calls(self) -> list[LayerCalls]:
        """What was counted since the counts were started over."""
        plans: dict[Problem, Plan] = {}
        callers: dict[Problem, list[tuple[str, str]]] = {}
        for layer in layers.snapshot():
            for kind in layer.calls:
                if kind.phase != "unknown":  # arguments that are MLX's own to judge
                    found = self.numbered[int(kind.route)]
                    assert found.problem is not None
                    plans.setdefault(found.problem, found)
                    callers.setdefault(found.problem, []).append((layer.name, layer.class_name))
        return [LayerCalls(plan, tuple(callers[problem])) for problem, plan in plans.items()]
