"""What a run does to the record of rewritten lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flash_integrate.attention.record import RECORD, dumped, read_record
from flash_integrate.attention.rewrites import Kept
from flash_integrate.disk import writing
from flash_integrate.report.diff import file_diff


@dataclass(frozen=True)
class RecordChange:
    """The record as it is and as it is to be; None where there is none."""

    top: Path
    before: bytes | None
    after: bytes | None

    @property
    def name(self) -> PurePosixPath:
        return RECORD

    @property
    def path(self) -> Path:
        return self.top / RECORD

    def diff(self) -> Iterator[bytes]:
        """The lines of its diff, as `git apply` takes them."""
        return file_diff(RECORD.as_posix(), self.before, self.after)

    def apply(self) -> None:
        """Writes it.

        Raises:
            FileError: it can't be written.
        """
        if self.before is None and self.after is not None:
            writing.create(self.path, self.top, self.after)
        elif self.before is not None and self.after is not None:
            writing.write(self.path, self.top, self.before, self.after)
        elif self.before is not None:
            writing.delete(self.path, self.top, self.before)
            writing.delete_empty_folder(self.path.parent, self.top)


def with_files(
    top: Path, rewritten: dict[PurePosixPath, list[Kept]], gone: dict[PurePosixPath, list[Kept]]
) -> RecordChange | None:
    """The record with what a run rewrote, and without what a revert took back of `gone`: for each
    of those files what is left; None if nothing changes."""
    before, files = read_record(top)
    for name, kept in rewritten.items():
        files[name] = [*files.get(name, []), *kept]
    for name, left in gone.items():
        files[name] = left
    files = {name: kept for name, kept in files.items() if kept}
    after = dumped(files) if files else None
    return RecordChange(top, before, after) if after != before else None
