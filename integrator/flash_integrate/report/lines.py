"""Line numbers of a file as it lies on disk once a run is over."""

from __future__ import annotations

from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status


def line_on_disk(outcome: Outcome, line: int, *, dry_run: bool) -> int:
    """The number on disk of a line which is counted, as notes count, in the file without the
    insertions."""
    holds_insertions = outcome.status is (Status.REVERTED if dry_run else Status.CHANGED)
    for inserted in sorted(outcome.lines) if holds_insertions else []:
        line += inserted <= line
    return line
