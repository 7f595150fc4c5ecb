"""What the planner remembers for a kind of call: the route, how to run it, and how to count it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

import mlx.core as mx

from .. import stock
from ..problem import Launch, Problem
from ..routes import native
from . import layers
from .choice import Choice
from .counts import Decision, Kind, calls_of


@dataclass(eq=False, slots=True)
class Plan:
    """How calls of one key are run: `run(q, k, v, scale=, mask=, sinks=)`, with MLX's own
    arguments.

    `choice` is None where the call is MLX's own to judge. `in_training` is the plan for when a
    gradient is traced, where that is another one. `kind` is what a call counts as, `numbers`
    counts it; in the next `to_learn` of them the layer is looked for, see `layers`.
    `dtype_to_check` is the type that it is for where the size of an array does
    not tell it from another: float16 or bfloat16.
    """

    kind: Kind
    run: Launch
    choice: Choice | None = None
    in_training: Plan | None = None
    to_learn: int = layers.LEARNED_CALLS
    dtype_to_check: mx.Dtype | None = field(init=False)
    numbers: Iterator[int] = field(init=False)

    def __post_init__(self) -> None:
        self.numbers = calls_of(self.kind).numbers
        problem = self.problem
        if problem is None or problem.item_bytes != 2:
            self.dtype_to_check = None
        else:
            self.dtype_to_check = getattr(mx, problem.dtype)

    def learn(self, caller: FrameType) -> None:
        """Counts a call for the layer that made it from the frame `caller`."""
        if self.to_learn:
            self.to_learn -= 1
        layers.find(self.kind, caller)

    @property
    def problem(self) -> Problem | None:
        """What was planned; None where the call is MLX's own to judge."""
        return None if self.choice is None else self.choice.problem

    @property
    def decision(self) -> Decision:
        """The route's name and the reason for it."""
        return self.kind.decision

    @property
    def is_quick(self) -> bool:
        """Whether it is right whatever the types of keys and values and the device are: its
        function judges those itself, in a gradient as outside."""
        return (
            self.choice is not None
            and self.choice.route.judges_the_rest
            and self.in_training is None
        )

    @property
    def improves(self) -> bool:
        """Whether it is better than MLX's unfused attention, known so rather than for lack of
        anything else."""
        return self.choice is not None and self.choice.route.improves


# A call that MLX itself rejects (it words the error), or that asks something of MLX that no route
# describes.
UNPLANNED = Plan(
    Kind("unknown", native.name, "the arguments are MLX's own to judge"), run=stock.attention
)
