"""A model's attention calls on a device that need not be here, without computing anything.

MLX is lazy: a model that runs on attention that gives zeros only describes its layers. It runs
inside `mx.compile`, where MLX refuses to compute what depends on the inputs, so that a model which
needs its own numbers (dbrx chooses its experts by them) is an error rather than gigabytes of
random weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx

from ..patching import patch
from ..patching.softcap import HAND_WRITTEN
from ..planning import layers
from ..planning.choice import Choice
from ..planning.counts import Decision, Kind
from ..planning.plan import Plan
from ..planning.planner import Key, Planner
from ..problem import Device, Problem
from ..routes import blockwise, reference
from ..settings import Settings


class NotLazy(Exception):
    """The model needs computed numbers to say what it would compute."""


@contextmanager
def refusing_to_compute() -> Iterator[None]:
    """Raises NotLazy where MLX is to compute what depends on the inputs of a function that it
    traces."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("[eval]"):
            raise
        raise NotLazy("it has to compute numbers to know which of its parts run") from error


@dataclass(frozen=True)
class LayerCalls:
    """A distinct attention call: what was chosen for it, and by name and class the layers that make
    it."""

    choice: Choice
    layers: tuple[tuple[str, str], ...]

    @property
    def problem(self) -> Problem:
        """What the layers call for."""
        return self.choice.problem

    @property
    def decision(self) -> Decision:
        """The route that the layers take and why, or that they keep the attention that the model
        has of its own."""
        if self.problem.softcap is not None and not self.choice.route.improves:
            return HAND_WRITTEN
        return self.choice.decision


def rehearse(
    steps: Sequence[Callable[[mx.array], object]],
    shape: tuple[int, int],
    device: Device,
    settings: Settings,
    *,
    training: bool = False,
) -> list[list[LayerCalls]]:
    """The distinct attention calls of each step, in the order in which they are first made, as
    they would be planned on `device`. A step runs a model on tokens of `shape`, lazily; one may go
    on with the caches of the one before.

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
        with refusing_to_compute():
            mx.compile(run)(mx.zeros(shape, mx.int32))
    finally:
        patch.uninstall()
        if before is not None:
            patch.install(before)
        layers.forget()
    return found


def _zeros(q: mx.array, k: mx.array, v: mx.array, **rest: Any) -> mx.array:
    """In the place of attention: zeros of the right shape, which nobody computes."""
    return mx.zeros((*q.shape[:3], v.shape[3]), q.dtype)


class _Rehearsal(Planner):
    """Remembers its plans and numbers them; layers are counted by the number, in the place of a
    route."""

    def __init__(self, settings: Settings, device: Device, training: bool) -> None:
        super().__init__(settings, device, training)
        self.numbered: list[Choice] = []

    def _planned(self, key: Key, problem: Problem, mask: Any) -> Plan:
        found = super()._planned(key, problem, mask)
        assert found.choice is not None
        self.numbered.append(found.choice)
        kind = Kind(found.kind.phase, str(len(self.numbered) - 1), "")
        # Gemma 2 would write out its own attention, layer by layer, where the plan is no better.
        route = reference if problem.softcap is None else blockwise
        choice = found.choice if found.improves else replace(found.choice, route=route)
        return Plan(kind, _zeros, choice)

    def _next_token(self, before: Plan, key_length: int, mask: Any) -> Plan | None:
        """A kernel's call is planned anew, as it has a number of its own."""
        assert before.choice is not None
        return before if before.choice.route.is_stock else None

    def calls(self) -> list[LayerCalls]:
        """What was counted since the counts were started over."""
        choices: dict[Problem, Choice] = {}
        callers: dict[Problem, list[tuple[str, str]]] = {}
        for layer in layers.snapshot():
            for kind in layer.calls:
                if kind.phase != "unknown":  # arguments that are MLX's own to judge
                    found = self.numbered[int(kind.route)]
                    choices.setdefault(found.problem, found)
                    callers.setdefault(found.problem, []).append((layer.name, layer.class_name))
        return [LayerCalls(choice, tuple(callers[problem])) for problem, choice in choices.items()]
