"""The text of a notebook by its lines."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

_NEWLINE = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Text:
    """The text of a notebook, and on which line (from 1) a position of it stands."""

    text: str

    def line_of(self, position: int) -> int:
        return bisect_right(self._line_starts, position)

    def lines_begun(self, start: int, end: int) -> set[int]:
        """The lines that begin inside a piece of the text: those that it has more than it would
        have without."""
        return set(range(self.line_of(start) + 1, self.line_of(end) + 1))

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(match.end() for match in _NEWLINE.finditer(self.text))]
