"""What goes with the patched scripts where it is asked for: a copy of the runtime, the entry in
the requirements."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

from flash_integrate.attention.record import RECORD
from flash_integrate.attention.rewrites import Kept, kept_of
from flash_integrate.disk import reading, writing
from flash_integrate.errors import FileError
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.quoting import quoted
from flash_integrate.vendor.copied_files import COPY, Change
from flash_integrate.vendor.dependency import (
    ManifestEdit,
    added,
    find_manifests,
    lock_commands,
    removed,
    suggestion,
)
from flash_integrate.vendor.origin import Origin, origin
from flash_integrate.vendor.record_change import RecordChange, with_files
from flash_integrate.vendor.requirement import PACKAGE, CannotAdd
from flash_integrate.vendor.runtime_copy import (
    VendorPlan,
    apply_plan,
    needed_by,
    plan_removal,
    plan_vendor,
)
from flash_integrate.vendor.script_metadata import Block, read_block

_RECORD_REMARK = ": what stood in the place of rewritten attention, for --revert; commit it too"


@dataclass(frozen=True)
class Extras:
    """Changes of files that are not scripts, what the user should know or do about them, and what
    was asked for and can't be done."""

    vendor: tuple[VendorPlan, ...] = ()
    manifests: tuple[ManifestEdit, ...] = ()
    records: tuple[RecordChange, ...] = ()
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def changes(self) -> list[Change | ManifestEdit | RecordChange]:
        """Every file that is to be written or removed."""
        copies = [change for plan in self.vendor for change in plan.changes]
        return [*copies, *(edit for edit in self.manifests if edit.changes), *self.records]

    def described(self, *, dry_run: bool) -> list[str]:
        """What is done, a line for each file outside the copy; the files of the copy are
        counted."""
        counts = Counter(_described(change, dry_run) for change in self.changes)
        inside = {
            line: f" ({count} file{'s' if count != 1 else ''})" for line, count in counts.items()
        }
        return [line + (inside[line] if line.endswith("/") else "") for line in counts]

    def apply(self) -> Extras:
        """Writes the changes. What is returned lists also what could not be written."""
        failures = list(self.failures)
        for plan in self.vendor:
            try:
                apply_plan(plan)
            except FileError as error:
                failures.append(str(error))
        for edit in self.manifests:
            try:
                if edit.changes:
                    writing.write(edit.path, edit.top, edit.before, edit.after)
            except FileError as error:
                failures.append(f"{quoted(edit.name)}: {error}")
        for record in self.records:
            try:
                record.apply()
            except FileError as error:
                failures.append(f"{quoted(record.name)}: {error}")
        return dataclasses.replace(self, failures=tuple(failures))


def plan_extras(
    outcomes: Iterable[Outcome], *, vendor: bool, dependency: bool, force: bool
) -> Extras:
    """What the scripts of a run need beside themselves. Writes nothing.

    Raises:
        FileError: the runtime to copy is not installed, or was modified in the target.
    """
    outcomes = list(outcomes)
    # Scripts that had the call before are looked at where that is asked for.
    earlier = (Status.INTEGRATED,) if vendor or dependency else ()
    patched = (outcome for outcome in outcomes if not _is_rewrite_alone(outcome))
    scripts = _by_base(patched, Status.CHANGED, *earlier)
    copies, edits = [], []
    notes: list[str] = []
    source = origin() if scripts and not vendor else Origin()
    failures: list[str] = []
    for base, names in scripts.items():
        if vendor:
            copies.append(plan_vendor(base, names, force=force))
            continue
        blocks = {name: block for name in names if (block := _block_of(base, name)) is not None}
        for name, block in blocks.items():
            if (missing := block.lacking(source)) is not None:
                notes.append(f"{quoted(name)} lists its own dependencies: add {missing!r} there.")
        others = [name for name in names if name not in blocks]
        manifests = find_manifests(base, others)
        (failures if dependency else notes).extend(manifests.problems)
        if others and not dependency:
            notes += suggestion(manifests.found, source)
        for manifest in manifests.found if dependency else ():
            try:
                edits.append(added(manifest, source))
            except CannotAdd as error:
                notes.append(f"{quoted(manifest.name)} {error}.")
    if source.remark and any(edit.changes for edit in edits):
        notes.append(source.remark)
    notes += [f"Run `{command}`." for command in lock_commands(edits)]
    return Extras(
        tuple(copies),
        tuple(edits),
        _records(outcomes),
        tuple(notes),
        tuple(failures),
    )


def _is_rewrite_alone(outcome: Outcome) -> bool:
    """Whether nothing is inserted into a file: it needs no runtime."""
    return bool(outcome.rewrites) and outcome.after == outcome.before


def _records(outcomes: Iterable[Outcome]) -> tuple[RecordChange, ...]:
    """For each repo the record of what is rewritten in this run, or taken back."""
    found = []
    for base, items in groupby(sorted(outcomes, key=_base_of), key=_base_of):
        rewritten: dict[PurePosixPath, list[Kept]] = {}
        gone: dict[PurePosixPath, list[Kept]] = {}
        for outcome in items:
            if outcome.status is Status.CHANGED and outcome.rewrites:
                rewritten[outcome.name] = kept_of(outcome.result, outcome.after, outcome.rewrites)
            elif outcome.status is Status.REVERTED and outcome.taken_back:
                gone[outcome.name] = list(outcome.left)
        change = with_files(base, rewritten, gone) if rewritten or gone else None
        if change is not None:
            found.append(change)
    return tuple(found)


def _base_of(outcome: Outcome) -> Path:
    return outcome.base


def plan_removal_of_extras(outcomes: Iterable[Outcome], *, dependency: bool, force: bool) -> Extras:
    """What a revert takes out beside the scripts' own lines, of what no other script needs: the
    copy of the runtime, and the requirement in the form in which `plan_extras` adds it.

    The requirement is looked for where scripts are reverted, and with `dependency` wherever the
    run looked: whoever lists the runtime without a patched script has written that line by hand.
    """
    outcomes = list(outcomes)
    copies, edits, notes, failures = [], [], [], []
    reverted = _by_base(outcomes, Status.REVERTED)
    for base, names in _by_base(outcomes, *Status).items():
        gone = set(reverted.get(base, ()))
        try:
            copies.append(plan_removal(base, gone, force=force))
        except FileError as error:
            failures.append(str(error))
        still = [name for name in needed_by(base) if name not in gone]
        kept = {manifest.name for manifest in find_manifests(base, still).found}
        manifests = find_manifests(base, names if dependency else gone)
        problems = list(manifests.problems)
        for manifest in manifests.found:
            try:
                if manifest.name not in kept:
                    edits.append(removed(manifest))
            except FileError as error:
                problems.append(f"{manifest.name}: {error}")
        notes += [
            f"{problem}; if it lists {PACKAGE}, take that out by hand." for problem in problems
        ]
    notes += [f"Run `{command}`." for command in lock_commands(edits)]
    return Extras(tuple(copies), tuple(edits), _records(outcomes), tuple(notes), tuple(failures))


def _block_of(base: Path, name: PurePosixPath) -> Block | None:
    try:
        return read_block(reading.read(base / name, base))
    except FileError:  # it was read before; whoever writes it reports that it can't be any more
        return None


def _by_base(outcomes: Iterable[Outcome], *statuses: Status) -> dict[Path, list[PurePosixPath]]:
    names: dict[Path, list[PurePosixPath]] = {}
    for outcome in outcomes:
        if outcome.status in statuses:
            names.setdefault(outcome.base, []).append(outcome.name)
    return names


def _described(change: Change | ManifestEdit | RecordChange, dry_run: bool) -> str:
    verb, done = ("remove", "removed") if change.after is None else ("write", "wrote")
    name = f"{COPY}/" if COPY in change.name.parents else quoted(change.name)
    why = _RECORD_REMARK if change.name == RECORD and change.after is not None else ""
    return f"would {verb} {name}{why}" if dry_run else f"{done} {name}{why}"
