"""Named calls on every route that holds for them, in turns with MLX's own function, each behind a
check of its result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import mlx.core as mx

from ...explanation import explain
from ...planning.calibration import STOCK
from ...planning.machine import current_device
from ...problem import Problem
from ...routes import native, unfused
from . import cases, tune
from .timing import Timing


@dataclass(frozen=True)
class Measured:
    """One call: the name of what the planner takes, the times of each candidate by name, the names
    of those whose results are wrong, and of those that do not fit in memory."""

    name: str
    taken: str
    timings: Mapping[str, Timing]
    wrong: tuple[str, ...]
    too_large: tuple[str, ...]

    @property
    def ms(self) -> dict[str, float]:
        """Milliseconds by candidate, the fastest first."""
        return dict(sorted(tune.milliseconds(self.timings).items(), key=lambda item: item[1]))


def named(part: str) -> dict[str, Problem]:
    """The calls of `cases` in whose name `part` is. Softcapped ones are not among them: MLX's own
    function has no softcap to be held against."""
    training = {f"training: {name}": problem for name, problem in cases.training().items()}
    every = cases.inference() | training
    return {
        name: problem for name, problem in every.items() if part in name and problem.softcap is None
    }


def measure(problems: Mapping[str, Problem], time: tune.Time) -> Iterator[Measured]:
    """Each as it is done."""
    for name, problem in problems.items():
        yield _measured(name, problem, time)
        mx.clear_cache()


def _measured(name: str, problem: Problem, time: tune.Time) -> Measured:
    wrong: set[str] = set()
    too_large: set[str] = set()
    runs = tune.checked(problem, current_device(), wrong, too_large)
    timings = time(runs) if runs else {}
    route = explain(problem).route
    taken = STOCK if route in (native.name, unfused.name) else route
    return Measured(name, taken, timings, tuple(sorted(wrong)), tuple(sorted(too_large)))
