"""Unified diffs as `git apply` and `patch -p1` take them, made from inserted lines that are known;
searched for only where a file is created, removed, or has lines that git does not count."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from flash_integrate.python.source import split_lines
from flash_integrate.quoting import printable, quoted

CONTEXT = 3
_NO_NEWLINE = b"\n\\ No newline at end of file\n"
# Ends a line for Python and for this tool, but not for git.
_LONE_RETURN = re.compile(rb"\r(?!\n)")


@dataclass(frozen=True)
class Line:
    """A diff's line: `mark` is a space, `+` or `-`; `old` and `new` count the lines before it in
    each file."""

    mark: str
    data: bytes
    old: int
    new: int


@dataclass(frozen=True)
class Hunk:
    """Changed lines with the context around them; `changed` are those of the numbers given that it
    holds."""

    lines: tuple[Line, ...]
    changed: frozenset[int]
    heading: str = ""
    """What stands behind the header: of what kind the change is."""

    def text(self) -> Iterator[bytes]:
        """The hunk as a diff has it, its header first."""
        old, new = (sum(line.mark != mark for line in self.lines) for mark in "+-")
        first = self.lines[0]
        heading = f" {printable(self.heading)}" if self.heading else ""
        yield f"@@ -{_range(first.old, old)} +{_range(first.new, new)} @@{heading}\n".encode()
        for line in self.lines:
            ending = (
                b""
                if line.data.endswith(b"\n")
                else b"\n"
                if line.data.endswith(b"\r")
                else _NO_NEWLINE
            )
            yield line.mark.encode() + line.data + ending


def hunks(
    before: bytes, after: bytes, changed: set[int], *, removes: bool = False
) -> Iterator[Hunk]:
    """The hunks of a diff; `changed` are the lines that only `after` has, or with `removes` only
    `before`."""
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
        numbers = {
            (line.old if removes else line.new) + 1
            for line in hunk
            if line.mark == ("-" if removes else "+")
        }
        yield Hunk(hunk, frozenset(numbers & changed))


def replaced_hunks(before: bytes, after: bytes, headings: Mapping[int, str]) -> Iterator[Hunk]:
    """The hunks of a diff in which lines are replaced too; `headings` are the words for changes
    by the line of `before` at which they start."""
    old, new = split_lines(before), split_lines(after)
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for group in matcher.get_grouped_opcodes(CONTEXT):
        lines: list[Line] = []
        for tag, old_start, old_end, new_start, new_end in group:
            for index in range(old_start, old_end):
                mark = " " if tag == "equal" else "-"
                number = new_start + index - old_start if tag == "equal" else new_start
                lines.append(Line(mark, old[index], index, number))
            if tag != "equal":
                lines += [
                    Line("+", new[index], old_end, index) for index in range(new_start, new_end)
                ]
        first, last = group[0][1], group[-1][2]
        words = [text for line, text in headings.items() if first < line <= last + 1]
        yield Hunk(tuple(lines), frozenset(), "; ".join(words))


def diff_header(name: str) -> bytes:
    """The lines above the first hunk of a file that changes, as git writes them."""
    return _git_line(name) + _from_to(_labelled("a/" + name), _labelled("b/" + name))


def unified_diff(
    name: str, before: bytes, after: bytes, changed: set[int], *, removes: bool = False
) -> Iterator[bytes]:
    """The lines of a diff, headers first; `changed` and `removes` as for `hunks`."""
    if _LONE_RETURN.search(before):
        yield from file_diff(name, before, after)
        return
    yield diff_header(name)
    for hunk in hunks(before, after, changed, removes=removes):
        yield from hunk.text()


def file_diff(name: str, before: bytes | None, after: bytes | None) -> Iterator[bytes]:
    """The lines of a diff of any two contents: `before` is None for a file that is created,
    `after` for one that goes."""
    mode = (
        b"new file mode 100644\n"
        if before is None
        else b"deleted file mode 100644\n"
        if after is None
        else b""
    )
    yield _git_line(name) + mode
    old = b"/dev/null" if before is None else _labelled("a/" + name)
    new = b"/dev/null" if after is None else _labelled("b/" + name)
    lines = list(difflib.diff_bytes(difflib.unified_diff, _git_lines(before), _git_lines(after)))[
        2:
    ]
    if lines:  # not for an empty file
        yield _from_to(old, new)
    for line in lines:
        yield line if line.endswith(b"\n") else line + _NO_NEWLINE


def _git_lines(data: bytes | None) -> list[bytes]:
    """Lines as git counts them: a newline alone ends one."""
    return re.findall(rb"[^\n]*\n|[^\n]+", data or b"")


def _git_line(name: str) -> bytes:
    return b"diff --git %s %s\n" % (quoted("a/" + name).encode(), quoted("b/" + name).encode())


def _from_to(old: bytes, new: bytes) -> bytes:
    return b"--- %s\n+++ %s\n" % (old, new)


def _labelled(name: str) -> bytes:
    """A name in a line of its own: a tab tells `patch` that a blank does not end it."""
    return quoted(name).encode() + (b"\t" if " " in name else b"")


def _lines(
    before: list[bytes], after: list[bytes], changed: set[int], removes: bool
) -> Iterator[Line]:
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
