"""Edits of a source file: what is inserted, and where."""

from __future__ import annotations

from dataclasses import dataclass, field

from flash_integrate.python.signature import Position
from flash_integrate.python.syntax import Steps


@dataclass(frozen=True)
class Insertion:
    """Whole statements to insert before or after the statement at `anchor`, in its suite.

    `code` is written at column 0; a leading newline stands for a blank line. An anchor of None is
    the module's start.
    """

    anchor: Steps | None
    code: str
    before: bool = False


@dataclass(frozen=True)
class Splice:
    """Text to insert at a line and column of the source, for what stands in no suite: the options
    above a command, the parameters in its signature. Newlines are `\\n`; everything else is in the
    file's own style."""

    at: Position
    text: str


Edit = Insertion | Splice


@dataclass(frozen=True)
class Rewritten:
    """A file's bytes before and after, and the numbers of the lines that it has more or, after a
    revert, less.

    There are none where the change is a part of a line: a cell's source that is written as one
    string.
    """

    before: bytes = field(repr=False)
    after: bytes = field(repr=False)
    lines: frozenset[int]
