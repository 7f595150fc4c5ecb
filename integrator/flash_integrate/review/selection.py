"""A part of a change: the hunks that a reviewer accepts, if they work without the rest.

What a change inserts into a file holds together in groups. The flags of a parser stand or fall
with every place where its namespace is read: a call whose flags are not there would crash, and
flags that nothing reads would reach functions that don't take them, or do nothing. Lines that
belong to no parser (the call of a script without flags, a change in a file that is no Python) are
needed by all others.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from flash_integrate.errors import FileError, UnreadableSource, UnsafeRewrite
from flash_integrate.inserted.removal import inserted, without, without_lines
from flash_integrate.inserted.snippets import (
    BLOCK_SIZE_FLAG,
    DISABLE_FLAG,
    ENABLE,
    FLAG_NAMES,
    RUNTIME,
)
from flash_integrate.planning.codemod import asked, registry
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.project.workspace import Workspace
from flash_integrate.python.source import Source
from flash_integrate.python.syntax import Statement
from flash_integrate.report.diff import Hunk

# How an inserted line is called in a message, by the first of these that stands in it.
_KINDS = {
    f"from {RUNTIME} import": "the call",
    DISABLE_FLAG: "the flags",
    BLOCK_SIZE_FLAG: "the flags",
    f"{ENABLE}(": "the call",
    FLAG_NAMES[0]: "the removal of the flags' names",
}


def select(outcome: Outcome, hunks: Iterable[Hunk]) -> Outcome:
    """The outcome with some of its hunks alone inserted, or taken out: neither none of them nor
    all.

    Raises:
        UnsafeRewrite: with these hunks alone the file would not work; says what is missing.
    """
    chosen = frozenset[int]().union(*(hunk.changed for hunk in hunks))
    if chosen in (
        frozenset(),
        outcome.lines,
    ):  # a hunk that changes a part of a line, as in a notebook
        raise UnsafeRewrite("the hunks of this file can be had together alone")
    removes = outcome.status is Status.REVERTED
    longer = Source(outcome.path, outcome.before if removes else outcome.after)
    kept = outcome.lines - chosen if removes else chosen
    if missing := _missing(longer, outcome.lines, kept):
        raise UnsafeRewrite(
            f"what would be in the file does not work without {_described(longer, missing)}"
        )
    result = Source(outcome.path, without_lines(longer, set(outcome.lines - kept)))
    _verify(result, outcome.after if removes else outcome.before)
    if removes:  # a call stays: no name is left over for a note to speak of
        reason = f"{len(chosen)} of {len(outcome.lines)} lines taken out"
        return dataclasses.replace(
            outcome, after=result.data, lines=chosen, reason=reason, notes=()
        )
    # The lines are counted in the new file, which lacks the others.
    lines = frozenset(number - _below(outcome.lines - kept, number) for number in kept)
    return dataclasses.replace(outcome, after=result.data, lines=lines)


def _missing(longer: Source, inserted: frozenset[int], kept: frozenset[int]) -> frozenset[int]:
    """The inserted lines without which those that are kept do not work."""
    groups = _groups(longer, inserted)
    touched = [group for group in groups if group & kept]
    if not touched:
        return inserted - kept
    needed_by_all = inserted.difference(*groups)
    return needed_by_all.union(*touched) - kept


def _groups(source: Source, inserted: frozenset[int]) -> list[frozenset[int]]:
    """The inserted lines that belong together, as the codemods say: those of each parser.

    A file that `ast` can't read has no groups: its lines hold together as a whole.
    """
    # Other files are not looked into: what belongs to their parsers belongs to none here, and is
    # needed by all.
    name = PurePosixPath(source.path.name)
    facts = Workspace.alone(name, source.data, source.path.parent).facts(name)
    groups: list[list[Statement]] = []
    try:
        found = [item for item in facts.statements if item.line in inserted]
        for codemod in registry():
            groups += asked(codemod, "together", facts, found) or []
    except UnreadableSource:
        return []
    return [frozenset(number for item in group for number in _lines(item)) for group in groups]


def _lines(statement: Statement) -> range:
    return range(statement.line, (statement.node.end_lineno or statement.line) + 1)


def _described(source: Source, numbers: Iterable[int]) -> str:
    """`the flags (line 12) and the call (line 20)`."""
    first: dict[str, int] = {}
    for number, line in zip(sorted(numbers), _lines_of(source, numbers), strict=True):
        if (
            kind := next((kind for needle, kind in _KINDS.items() if needle.encode() in line), None)
        ) is not None:
            first.setdefault(kind, number)
    named = [f"{kind} (line {number})" for kind, number in first.items()]
    return " and ".join(named) or f"the lines {min(numbers)} to {max(numbers)}"


def _lines_of(source: Source, numbers: Iterable[int]) -> Iterator[bytes]:
    lines = source.lines()
    return (lines[number - 1] for number in sorted(numbers))


def _below(numbers: Iterable[int], limit: int) -> int:
    return sum(number < limit for number in numbers)


def _verify(result: Source, shorter: bytes) -> None:
    """Whether a file with some of its insertions compiles, and gives back the one without them."""
    try:
        with warnings.catch_warnings():
            # `"\d"` in a user's file is not this program's to warn about.
            warnings.simplefilter("ignore")
            compile(result.text, str(result.path), "exec", dont_inherit=True)
        restored = without(result, inserted(result))
    except (FileError, SyntaxError, ValueError) as error:
        raise UnsafeRewrite(f"the file would not be valid: {error}") from error
    if restored != shorter:
        raise UnsafeRewrite("taking the inserted lines out again would not give back the original")
