"""What a person is told of a file beside its change: why a codemod leaves it, and what to know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """Something to know of a file, and the line of which it speaks."""

    reason: str
    line: int | None = None


@dataclass(frozen=True)
class Refusal(Note):
    """Why a codemod that is meant for a file's style does not change this file."""


@dataclass(frozen=True)
class HandedOver(Refusal):
    """Why a file needs no change: what it starts turns the runtime on itself."""


@dataclass(frozen=True)
class Uncovered(Note):
    """A way to start attention that passes by every call, and why. `entry` says what starts it."""

    entry: str = ""
