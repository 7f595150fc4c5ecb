"""Ways through a project to attention: the parts of files that lie on them, and their ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import PurePosixPath

from flash_integrate.attention.evidence import Evidence, Kind, Link
from flash_integrate.attention.libraries import Use


@dataclass(frozen=True)
class Part:
    """A definition of a file, a method of a class (`Model.load`) or the file as a `WHOLE`; and how
    the search came here: from which part, from which line of it, and how sure the way is."""

    path: PurePosixPath
    name: str
    before: Part | None = field(default=None, compare=False)
    line: int = field(default=0, compare=False)
    use: Use = field(default=Use.RUNS, compare=False)
    distance: int = field(default=0, compare=False)

    def to(self, path: PurePosixPath, name: str, line: int, use: Use = Use.RUNS) -> Part:
        """The part to which a line of this one leads. A way is as sure as its least sure step."""
        return Part(path, name, self, line, max(self.use, use), self.distance + 1)

    def behind(self, way: Part) -> Part:
        """The same, where its way begins at the end of another."""
        if self.before is None:
            return way
        return self.before.behind(way).to(self.path, self.name, self.line, self.use)


@dataclass(frozen=True)
class End:
    """Attention, and the line of a part that comes to it."""

    part: Part
    line: int
    names: tuple[str, ...]
    kind: Kind
    use: Use = Use.RUNS

    def behind(self, way: Part) -> End:
        """The same, where its way begins at the end of another."""
        return End(self.part.behind(way), self.line, self.names, self.kind, self.use)

    @property
    def evidence(self) -> Evidence:
        """The links on the way: of each file the line that leads out of it."""
        links = [Link(self.part.path, self.line)]
        at: Part | None = self.part
        while at is not None:
            if at.before is not None and at.before.path != links[0].path:
                links.insert(0, Link(at.before.path, at.line))
            at = at.before
        return Evidence(tuple(links), self.names, self.kind)


class Ways:
    """What is still to be looked at: the surest ways first, of those the shortest, and of those
    what was found first."""

    def __init__(self, start: Part) -> None:
        self._count = 0
        self._waiting: list[tuple[Use, int, int, Part | End]] = []
        self.add(start)

    def add(self, found: Part | End) -> None:
        part = found.part if isinstance(found, End) else found
        self._count += 1
        entry = (max(part.use, found.use), part.distance, self._count, found)
        heappush(self._waiting, entry)

    def __iter__(self) -> Iterator[Part | End]:
        while self._waiting:
            yield heappop(self._waiting)[-1]
