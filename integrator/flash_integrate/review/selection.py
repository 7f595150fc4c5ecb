"""A part of a change: the inserted lines that a reviewer accepts, or has edited."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from flash_integrate.errors import FileError, UnsafeRewrite
from flash_integrate.inserted.removal import inserted, without, without_lines
from flash_integrate.notes import Note
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.python.source import Source, split_lines
from flash_integrate.report.diff import Hunk
from flash_integrate.review.units import Lines, Unit, longer_of, renumbered

_OWN_LINE = "a line of the file's own was edited or taken out"


@dataclass(frozen=True)
class Edited:
    """Lines as a reviewer has edited them, each to stand below so many lines of the file as it
    was."""

    lines: tuple[tuple[int, bytes], ...]


def select(outcome: Outcome, chosen: Lines) -> Outcome:
    """The outcome with some of its lines alone inserted, or taken out: neither none of them nor
    all.

    Raises:
        UnsafeRewrite: with these lines alone the file would not be valid.
    """
    removes = outcome.status is Status.REVERTED
    gone = chosen if removes else outcome.lines - chosen
    result = Source(outcome.path, without_lines(longer_of(outcome), set(gone)))
    _check_compiles(result)
    if not _gives_back(result, outcome.after if removes else outcome.before):
        raise UnsafeRewrite("taking the inserted lines out again would not give back the original")
    if removes:  # a call stays: no name is left over for a note to speak of
        reason = f"{len(chosen)} of {len(outcome.lines)} lines taken out"
        return dataclasses.replace(
            outcome, after=result.data, lines=chosen, reason=reason, notes=()
        )
    return dataclasses.replace(outcome, after=result.data, lines=renumbered(chosen, gone))


def with_edits(outcome: Outcome, chosen: Lines, edits: Sequence[Edited]) -> Outcome:
    """The outcome with the chosen lines inserted, and those that a reviewer has edited.

    Raises:
        UnsafeRewrite: the file would not be valid.
    """
    shown = longer_of(outcome).lines()
    placed = [(number - _below(outcome.lines, number) - 1, shown[number - 1]) for number in chosen]
    placed += [line for edit in edits for line in edit.lines]
    placed.sort(key=lambda line: line[0])  # stable: lines of one place keep their order
    own = split_lines(outcome.before)
    lines: list[bytes] = []
    numbers: set[int] = set()
    for index in range(len(own) + 1):
        for _, data in (line for line in placed if line[0] == index):
            lines.append(data)
            numbers.add(len(lines))
        lines += own[index : index + 1]
    result = Source(outcome.path, b"".join(lines))
    _check_compiles(result)
    notes = outcome.notes
    if not _gives_back(result, outcome.before):
        notes += (Note("edited in the review: --revert does not take out all of it"),)
    return dataclasses.replace(outcome, after=result.data, lines=frozenset(numbers), notes=notes)


def can_be_edited(unit: Unit) -> bool:
    """Whether the lines of a unit can be edited: those that are put into one script between others
    of its own."""
    outcome = unit.part.outcome
    is_script = outcome.status is Status.CHANGED and outcome.path.suffix == ".py"
    ends = outcome.before.endswith(b"\n")
    return not unit.is_rewrite and is_script and ends


def edited(hunks: Sequence[Hunk], text: bytes) -> Edited:
    """What a reviewer has made of the hunks' text: lines with a plus may be edited, added and
    removed; lines with a blank are the file's own.

    Raises:
        UnsafeRewrite: a line of the file's own was edited or taken out.
    """
    own = [line for hunk in hunks for line in hunk.lines if line.mark == " "]
    newline = b"\r\n" if own and own[0].data.endswith(b"\r\n") else b"\n"
    starts = [hunk.lines[0].old for hunk in hunks]
    found: list[tuple[int, bytes]] = []
    at = 0
    for line in split_lines(text):
        data = line[1:].rstrip(b"\r\n")
        if line.startswith(b"+"):
            found.append((at, data + newline))
        elif line.startswith(b"@@") and starts:
            at = starts.pop(0)
        elif own and line[:1] in (b" ", b"\n", b"\r") and data.rstrip() == own[0].data.rstrip():
            at = own.pop(0).old + 1  # an editor may have taken a blank from its end
        elif not line.startswith(b"#"):
            raise UnsafeRewrite(_OWN_LINE)
    if own:
        raise UnsafeRewrite(_OWN_LINE)
    return Edited(tuple(found))


def _below(numbers: Lines, limit: int) -> int:
    return sum(number < limit for number in numbers)


def _check_compiles(result: Source) -> None:
    try:
        with warnings.catch_warnings():
            # `"\d"` in a user's file is not this program's to warn about.
            warnings.simplefilter("ignore")
            compile(result.text, str(result.path), "exec", dont_inherit=True)
    except (FileError, SyntaxError, ValueError) as error:
        raise UnsafeRewrite(f"the file would not be valid: {error}") from error


def _gives_back(result: Source, shorter: bytes) -> bool:
    """Whether a file without what is recognised as inserted is the one that it was made of."""
    try:
        return without(result, inserted(result)) == shorter
    except FileError:
        return False
