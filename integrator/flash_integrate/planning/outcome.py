"""How one file ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from flash_integrate.attention.evidence import Evidence
from flash_integrate.attention.rewrites import Kept, Rewrite, applied
from flash_integrate.notes import Note, Uncovered
from flash_integrate.planning.plan import Status
from flash_integrate.project.processes import Started

NO_MLX = "no MLX"
NOT_INTEGRATED = "not integrated by this tool"


@dataclass(frozen=True)
class Outcome:
    """How one file ends. `after` is what is to be written, `lines` the numbers of the lines that
    differ in it (`CHANGED`) or in `before` (`REVERTED`)."""

    base: Path
    name: PurePosixPath
    status: Status
    reason: str
    line: int | None = None
    codemod: str | None = None
    review: str = ""
    notes: tuple[Note, ...] = ()
    uncovered: tuple[Uncovered, ...] = ()
    starts: tuple[Started, ...] = ()
    """What runs in processes of its own that this file starts, and is in other files."""
    evidence: Evidence | None = None
    """How it comes to attention, where that was asked for and it does."""
    before: bytes = field(default=b"", repr=False)
    after: bytes = field(default=b"", repr=False)
    lines: frozenset[int] = frozenset()
    rewrites: tuple[Rewrite, ...] = ()
    """Attention by hand that becomes a fused call, on top of what is inserted."""
    taken_back: tuple[Kept, ...] = ()
    """For a reverted file: the rewrites that `before` still has, and `after` has not."""
    left: tuple[Kept, ...] = ()
    """For a reverted file: the rewrites whose lines have changed since."""

    @property
    def result(self) -> bytes:
        """What is to be written: `after` with the rewrites made."""
        return applied(self.after, self.rewrites) if self.rewrites else self.after

    @property
    def replaces(self) -> bool:
        """Whether lines of the file's own are replaced, not only others inserted."""
        return bool(self.rewrites or self.taken_back)

    @property
    def path(self) -> Path:
        return self.base / self.name

    @property
    def changes(self) -> bool:
        return self.status in (Status.CHANGED, Status.REVERTED)
