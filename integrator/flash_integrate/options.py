"""The command line's options as one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """The command line's options, by the names of its help text."""

    dry_run: bool
    check: bool
    reverting: bool
    interactive: bool
    explain: bool
    exclude: tuple[str, ...]
    only: tuple[str, ...]
    skip: tuple[str, ...]
    force: bool
    vendor: bool
    dependency: bool
    json_file: Path | None
    sarif_file: Path | None
    markdown_file: Path | None
    color: str
    jobs: int | None
    verbose: bool

    @property
    def writing(self) -> bool:
        return not (self.dry_run or self.check)

    @property
    def mode(self) -> str:
        action = "revert" if self.reverting else "apply"
        return f"{action} --dry-run" if self.dry_run else f"{action} --check" if self.check else action
