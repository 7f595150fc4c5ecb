"""Unified diffs as `git apply` takes them, made from the inserted lines that are known, not searched for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from flash_integrate.source import split_lines

CONTEXT = 3
_NO_NEWLINE = b"\n\\ No newline at end of file\n"


@dataclass(frozen=True)
class Line:
    """A diff's line: `mark` is a space, `+` or `-`; `old` and `new` count the lines before it in each file."""

    mark: str
    data: bytes
    old: int
    new: int


@dataclass(frozen=True)
class Hunk:
    """Changed lines with the context around them; `changed` are those of the numbers given that it holds."""

    lines: tuple[Line, ...]
    changed: frozenset[int]

    def text(self) -> Iterator[bytes]:
        """The hunk as a diff has it, its header first."""
        old, new = (sum(line.mark != mark for line in self.lines) for mark in "+-")
        yield f"@@ -{_range(self.lines[0].old, old)} +{_range(self.lines[0].new, new)} @@\n".encode()
        for line in self.lines:
            ending = b"" if line.data.endswith(b"\n") else _NO_NEWLINE
            yield line.mark.encode() + line.data + ending


def hunks(before: bytes, after: bytes, changed: set[int], *, removes: bool = False) -> Iterator[Hunk]:
    """The hunks of a diff; `changed` are the lines that only `after` has, or with `removes` only `before`."""
    lines = list(_lines(split_lines(before), split_lines(after), changed, removes))
    near = {
        index + offset
        for index, line in enumerate(lines)
        if line.mark != " "
        for offset in range(-CONTEXT, CONTEXT + 1)
    }
    shown = [index for index in sorted(near) if 0 <= index < len(lines)]
    for _, group in groupby(enumerate(shown), key=lambda pair: pair[1] - pair[0]):
        hunk = tuple(lines[index] for _, index in group)
        numbers = {(line.old if removes else line.new) + 1 for line in hunk if line.mark == ("-" if removes else "+")}
        yield Hunk(hunk, frozenset(numbers & changed))


def diff_header(name: str) -> bytes:
    """The lines above a file's first hunk; a name that is not UTF-8 is written as its own bytes."""
    return b"diff --git a/%s b/%s\n--- a/%s\n+++ b/%s\n".replace(b"%s", os.fsencode(name))


def unified_diff(
    name: str, before: bytes, after: bytes, changed: set[int], *, removes: bool = False
) -> Iterator[bytes]:
    """The lines of a diff, headers first; `changed` and `removes` as for `hunks`."""
    yield diff_header(name)
    for hunk in hunks(before, after, changed, removes=removes):
        yield from hunk.text()


def _lines(before: list[bytes], after: list[bytes], changed: set[int], removes: bool) -> Iterator[Line]:
    shorter, longer = (after, before) if removes else (before, after)
    mark, others = ("-" if removes else "+"), iter(shorter)
    old = new = 0
    for number, data in enumerate(longer, start=1):
        if number in changed:
            yield Line(mark, data, old, new)
            old, new = (old + 1, new) if removes else (old, new + 1)
            continue
        other = next(others)
        if other == data:
            yield Line(" ", data, old, new)
        else:  # the last line of a file without a final newline gains or loses one
            yield Line("-", data if removes else other, old, new)
            yield Line("+", other if removes else data, old + 1, new)
        old, new = old + 1, new + 1


def _range(start: int, count: int) -> str:
    """A hunk's range: lines count from 1, and an empty range names the line before it."""
    return f"{start + 1 if count else start},{count}"
