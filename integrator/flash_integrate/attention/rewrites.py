"""Lines of a model's code that are replaced, and the way back to the ones that stood there.

A replacement is kept as the lines before and after, and as which of several equal places it is
meant: that survives changes elsewhere in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flash_integrate.errors import UnsafeRewrite


@dataclass(frozen=True)
class Rewrite:
    """Attention written by hand that becomes a fused call. `before` and `after` are whole lines,
    `first_line` the number of the first one in the file as it was, and `index` tells which of the
    places it is where the same lines stand more than once."""

    function: str
    line: int
    """Where the attention is, in the file as it was."""
    first_line: int
    before: bytes
    after: bytes
    index: int
    verdict: str
    proved: bool
    unseen: str = ""
    """What a row that sees no key gives, where that was found out."""
    differs: bool = False
    """Whether the fused call was found to give something else."""

    @property
    def described(self) -> str:
        said = f"{self.verdict}; {self.unseen}" if self.unseen else self.verdict
        return f"the attention of {self.function} becomes a fused call: {said}"


def applied(data: bytes, rewrites: Iterable[Rewrite]) -> bytes:
    """The file with each of `rewrites` made.

    Raises:
        UnsafeRewrite: the lines that one of them replaces are not there.
    """
    places = []
    for rewrite in rewrites:
        found = occurrences(data, rewrite.before)
        if rewrite.index >= len(found):
            raise UnsafeRewrite("the attention to be rewritten is not where it was found")
        places.append((found[rewrite.index], rewrite))
    for start, rewrite in sorted(places, key=lambda place: place[0], reverse=True):
        data = data[:start] + rewrite.after + data[start + len(rewrite.before) :]
    return data


def occurrences(data: bytes, lines: bytes) -> list[int]:
    """Where whole lines stand in a file."""
    found: list[int] = []
    start = data.find(lines)
    while start >= 0 and lines:
        end = start + len(lines)
        starts = start == 0 or data[start - 1 : start] in (b"\n", b"\r")
        ends = end == len(data) or lines[-1:] in (b"\n", b"\r")
        if starts and ends:
            found.append(start)
        start = data.find(lines, start + 1)
    return found


@dataclass(frozen=True)
class Kept:
    """What a rewrite replaced, as the record of a repo keeps it: `index` counts among the places
    where `after` stands in the rewritten file, of which there were `places`."""

    function: str
    before: bytes
    after: bytes
    index: int
    places: int


def kept_of(result: bytes, original: bytes, rewrites: Sequence[Rewrite]) -> list[Kept]:
    """What a record holds of the rewrites that made `result` of `original`."""
    found = []
    shift = 0
    starts = [
        (occurrences(original, rewrite.before)[rewrite.index], rewrite) for rewrite in rewrites
    ]
    starts.sort(key=lambda place: place[0])
    for start, rewrite in starts:
        places = occurrences(result, rewrite.after)
        found.append(
            Kept(
                rewrite.function,
                rewrite.before,
                rewrite.after,
                places.index(start + shift),
                len(places),
            )
        )
        shift += len(rewrite.after) - len(rewrite.before)
    return found


def taken_back(data: bytes, kept: Iterable[Kept]) -> tuple[bytes, list[Kept]]:
    """The file with the lines that were replaced in their place again, and what could not be put
    back: its lines have changed since."""
    places = []
    left: list[Kept] = []
    for item in kept:
        found = occurrences(data, item.after)
        if len(found) == item.places:
            places.append((found[item.index], item))
        else:
            left.append(item)
    for start, item in sorted(places, key=lambda place: place[0], reverse=True):
        data = data[:start] + item.before + data[start + len(item.after) :]
    return data, left
