"""What the pages say of a figure whose code has changed since it was measured, and of one whose
rounds differ much."""

from __future__ import annotations

import textwrap
from typing import Any

from depends import changed

from mlx_flash_runtime.tools.bench.definitions import UNSTEADY, UNSTEADY_MEANS

MARK = "†"
MARKED = """\
† measured with other code than there is now, or with code that was not recorded: {place} says \
with each result what has
changed since."""
BESIDE = (
    "Beside {beside} more, each on a GPU of its own: what the processor bounds is "
    "slower for it, and less steady."
)
INCOMPLETE = "Stopped before all of its rows were measured."
UNRECORDED = "Measured before results kept the code that they depend on"


def mark(name: str, machine: dict[str, Any]) -> str:
    """` †` where the code that a result depends on is not what was measured; else empty."""
    return "" if changed(name, machine) == [] else f" {MARK}"


def meanings(shown: str, place: str) -> list[str]:
    """What the marks of a text mean, those that it has; `place` says more."""
    found = [textwrap.fill(line, 120) for line in in_a_line(shown)]
    return [*found, MARKED.format(place=place)] if MARK in shown else found


def in_a_line(shown: str) -> list[str]:
    """What `~` means, for the list below tables that have it."""
    return [UNSTEADY_MEANS] if f"{UNSTEADY} |" in shown else []


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
