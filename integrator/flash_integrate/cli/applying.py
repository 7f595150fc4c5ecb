"""Writing what was planned: not over work that git does not have, whole files only, and what was
written is told where it is interrupted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flash_integrate.disk.committed import uncommitted
from flash_integrate.disk.writing import remove_leftovers, write
from flash_integrate.errors import FileError
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.quoting import quoted

if TYPE_CHECKING:
    from flash_integrate.vendor.extras import Extras


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while files were written; `told` says of each whether it was."""

    def __init__(self, told: Sequence[str]) -> None:
        super().__init__()
        self.told = tuple(told)


class Uncommitted(Exception):
    """Files with changes that git does not have would be written over; the message names them."""


def files_of(outcomes: Iterable[Outcome], extras: Extras) -> list[Path]:
    """The files that a run looked at, and those that it may write beside them."""
    return [*(outcome.path for outcome in outcomes), *(change.path for change in extras.changes)]


def apply(outcomes: list[Outcome], extras: Extras) -> tuple[list[Outcome], Extras]:
    """Writes the changes to disk; what could not be written is a failed outcome, or a failure of
    the extras.

    Raises:
        Interrupted: by Ctrl-C.
    """
    try:
        remove_leftovers({path.parent for path in files_of(outcomes, extras)})
        return [_written(outcome) for outcome in outcomes], extras.apply()
    except KeyboardInterrupt as error:
        raise Interrupted(_told(outcomes, extras)) from error


def _written(outcome: Outcome) -> Outcome:
    """Writes a change to disk; an outcome that could not be written is a failed one."""
    if not outcome.changes:
        return outcome
    try:
        write(outcome.path, outcome.base, outcome.before, outcome.result)
    except FileError as error:
        return dataclasses.replace(
            outcome, status=Status.FAILED, reason=str(error), line=error.line
        )
    return outcome


def _told(outcomes: Iterable[Outcome], extras: Extras) -> list[str]:
    """Of each file that was to change whether it did, as it lies on disk."""
    wanted: dict[tuple[Path, str], bytes | None] = {
        (outcome.path, quoted(outcome.name)): outcome.result
        for outcome in outcomes
        if outcome.changes
    }
    wanted |= {(change.path, quoted(change.name)): change.after for change in extras.changes}
    lines = []
    for (path, name), after in wanted.items():
        held = None
        with suppress(OSError):
            held = path.read_bytes()
        lines.append(f"{'written' if held == after else 'not written'}: {name}")
    return lines


def refuse_uncommitted(outcomes: Iterable[Outcome], extras: Extras) -> None:
    """Checks that git could give back every file that is to be written over.

    Raises:
        Uncommitted: it could not.
    """
    held = {outcome.path: outcome.before for outcome in outcomes if outcome.changes}
    held |= {change.path: change.before for change in extras.changes if change.before is not None}
    names = {item.path: quoted(item.name) for item in (*outcomes, *extras.changes)}
    try:
        found = uncommitted(held)
    except FileError as error:
        raise Uncommitted(f"{error}\nWith --force the files are written all the same.") from error
    if found:
        listed = [
            f"  {names[path]}: {doubt}" if doubt else f"  {names[path]}"
            for path, doubt in found.items()
        ]
        raise Uncommitted(
            "these files have changes that are not committed; nothing was written:\n"
            + "\n".join(listed)
            + "\nCommit or stash them first, or write over them with --force."
        )
