"""How many attention calls took which route, in which phase, and why."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import NamedTuple

from ..problem import Phase


class Decision(NamedTuple):
    """A route's name and the reason for it."""

    route: str
    reason: str


class Kind(NamedTuple):
    """What a call counts as: its phase (`problem.Phase`) and the decision."""

    phase: Phase
    route: str
    reason: str

    @property
    def decision(self) -> Decision:
        """The route and its reason."""
        return Decision(self.route, self.reason)


class Calls:
    """The number of calls of one kind, counted by many threads without a lock: `next(numbers)`
    is one step that no other thread comes in between."""

    def __init__(self) -> None:
        self.numbers = count()
        self._left_out = 0

    def start_over(self) -> None:
        """Counts from nothing."""
        found = self.total()
        self._left_out += found

    def total(self) -> int:
        """The calls so far. To look at the next number takes it, so one more is left out."""
        found = next(self.numbers) - self._left_out
        self._left_out += 1
        return found


_calls: dict[Kind, Calls] = {}


def calls_of(kind: Kind) -> Calls:
    """The one counter of that kind."""
    return _calls.setdefault(kind, Calls())


def totals() -> Counter[Kind]:
    """The calls so far by kind, of all threads; kinds without calls are left out."""
    found = Counter({kind: calls.total() for kind, calls in list(_calls.items())})
    return +found


def forget() -> None:
    """Starts all counts over."""
    for calls in list(_calls.values()):
        calls.start_over()
