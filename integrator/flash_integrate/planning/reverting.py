"""The way back over a tree: every file without what the tool put into it. Writes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from flash_integrate.attention.record import read_record
from flash_integrate.attention.rewrites import Kept
from flash_integrate.errors import FileError, own_errors
from flash_integrate.inserted.revert import FlagUse, flag_use, revert_script
from flash_integrate.notebook.cells import Notebook
from flash_integrate.notebook.program import SUFFIX
from flash_integrate.notebook.rewriting import revert_notebook
from flash_integrate.planning.outcome import NOT_INTEGRATED, Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.planning.rewriting import take_back
from flash_integrate.planning.run import Progress, failed, read_found
from flash_integrate.project.discover import Found, discover
from flash_integrate.python.edits import Rewritten
from flash_integrate.python.source import Source
from flash_integrate.quoting import quoted


def revert(paths: list[Path], exclude: Iterable[str], progress: Progress) -> list[Outcome]:
    """The outcome of each Python file below `paths`, its insertions taken out."""
    outcomes = []
    files = list(discover(paths, exclude))
    records = {base: read_record(base)[1] for base in {found.base for found in files}}
    for found in progress(files, "reading"):
        try:
            with own_errors():
                outcomes.append(_revert_file(found, records[found.base].get(found.name, [])))
        except FileError as error:
            outcomes.append(failed(found.base, found.name, error))
    return _with_who_reads_their_flags(outcomes)


def reverted(path: Path, data: bytes) -> Rewritten | None:
    """A script or notebook without what the tool put into it; None if there is nothing of it.

    Raises:
        FileError: it can't be read, or without the insertions it would not run.
    """
    if path.suffix == SUFFIX:
        return revert_notebook(Notebook(path, data))
    return revert_script(Source(path, data))


def _revert_file(found: Found, kept: list[Kept]) -> Outcome:
    data = read_found(found)
    if kept and found.path.suffix != SUFFIX:
        outcome = Outcome(found.base, found.name, Status.REVERTED, "", before=data)
        return take_back(outcome, found.path, kept)
    result = reverted(found.path, data)
    if result is None:
        return Outcome(found.base, found.name, Status.SKIPPED, NOT_INTEGRATED)
    return Outcome(
        found.base,
        found.name,
        Status.REVERTED,
        f"{len(result.lines)} lines taken out" if result.lines else "taken out",
        before=data,
        after=result.after,
        lines=result.lines,
    )


# A parser in one file and the call that reads its flags in another


def _with_who_reads_their_flags(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes, but no flags are taken out of a file while another one still reads them: its
    call was edited since, or the run does not look at it."""
    return [_unless_read_elsewhere(outcome, outcomes) for outcome in outcomes]


def _unless_read_elsewhere(outcome: Outcome, outcomes: Sequence[Outcome]) -> Outcome:
    if outcome.status is not Status.REVERTED or outcome.path.suffix == SUFFIX:
        return outcome
    here = flag_use(Source(outcome.path, outcome.before))
    if not here.given:
        return outcome
    for found, use in _who_still_reads(outcome.base, outcomes):
        named = outcome.name.stem if outcome.name.stem != "__init__" else outcome.path.parent.name
        if here.read_at and named.encode() not in found.path.read_bytes():
            continue
        reason = f"{quoted(found.name)}:{use.read_at} still reads its flags: revert both, "
        reason += "or take that call out by hand"
        return dataclasses.replace(outcome, status=Status.FAILED, reason=reason)
    return outcome


def _who_still_reads(base: Path, outcomes: Sequence[Outcome]) -> Iterator[tuple[Found, FlagUse]]:
    """The files of a repo that this run does not revert, and that read flags of another file."""
    gone = {outcome.path for outcome in outcomes if outcome.status is Status.REVERTED}
    for found in discover([base]):
        if found.path in gone or found.path.suffix != ".py":
            continue
        try:
            use = flag_use(Source(found.path, read_found(found)))
        except FileError:  # a file that is no Python reads nothing
            continue
        if use.read_at and not use.given:
            yield found, use
