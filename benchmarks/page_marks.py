"""What the pages say of a figure whose code has changed since it was measured, and of one whose
rounds differ much."""

from __future__ import annotations

from typing import Any

from depends import changed

MARK = "†"
MARKED = """\
† measured with other code than there is now, or with code that was not recorded: {place} says \
with each result what has
changed since."""
UNSTEADY = "~"
UNSTEADY_MEANS = """\
~ unsteady: of stock or ours, the middle half of the rounds spans more than a tenth of their \
median, so that the ratio is
a rough one."""
_STEADY = 0.9
BESIDE = (
    "Beside {beside} more, each on a GPU of its own: what the processor bounds is "
    "slower for it, and less steady."
)
INCOMPLETE = "Stopped before all of its rows were measured."
UNRECORDED = "Measured before results kept the code that they depend on"


def mark(name: str, machine: dict[str, Any]) -> str:
    """` †` where the code that a result depends on is not what was measured; else empty."""
    return "" if changed(name, machine) == [] else f" {MARK}"


def unsteady(row: dict[str, Any]) -> str:
    """` ~` where the rounds of either side differ so much that their ratio is a rough one."""
    stabilities = (row.get(f"{name}_stability") for name in ("stock", "ours"))
    return f" {UNSTEADY}" if any(x is not None and x < _STEADY for x in stabilities) else ""


def meanings(shown: str, place: str) -> list[str]:
    """What the marks of a text mean, those that it has; `place` says more."""
    found = [UNSTEADY_MEANS] if f"{UNSTEADY} |" in shown else []
    return [*found, MARKED.format(place=place)] if MARK in shown else found


def measured_with(name: str, machine: dict[str, Any]) -> str:
    """The commit that was measured, and in what its code has changed since; empty where there is
    nothing to say."""
    said = []
    if not machine.get("complete", True):
        said.append(INCOMPLETE)
    if "beside" in machine:
        said.append(BESIDE.format(**machine))
    if commit := machine.get("commit"):
        said.append(f"Commit {commit[:9]}{'+' if commit.endswith('+') else ''}.")
    differing = changed(name, machine)
    if differing is None:
        said.append(f"{MARK} {UNRECORDED}.")
    elif differing:
        said.append(f"{MARK} Changed since: {', '.join(f'`{source}`' for source in differing)}.")
    return " ".join(said)
