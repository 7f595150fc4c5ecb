"""What goes with the patched scripts where it is asked for: a copy of the runtime, the entry in the requirements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flash_integrate import apply
from flash_integrate.errors import FileError
from flash_integrate.extras.dependency import ManifestEdit, added, find_manifests, lock_commands, removed, suggestion
from flash_integrate.extras.requirement import PACKAGE, CannotAdd
from flash_integrate.extras.script_metadata import read_block
from flash_integrate.extras.vendor import COPY, Change, VendorPlan, apply_plan, needed_by, plan_removal, plan_vendor
from flash_integrate.plan import Status
from flash_integrate.quoting import quoted
from flash_integrate.run import Outcome


@dataclass(frozen=True)
class Extras:
    """Changes of files that are not scripts, and what the user should know or do about them."""

    vendor: tuple[VendorPlan, ...] = ()
    manifests: tuple[ManifestEdit, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> list[Change | ManifestEdit]:
        """Every file that is to be written or removed."""
        copies = [change for plan in self.vendor for change in plan.changes]
        return [*copies, *(edit for edit in self.manifests if edit.changes)]

    def described(self, *, dry_run: bool) -> list[str]:
        """What is done, a line for each file outside the copy; the files of the copy are counted."""
        counts = Counter(_described(change, dry_run) for change in self.changes)
        inside = {line: f" ({count} file{'s' if count != 1 else ''})" for line, count in counts.items()}
        return [line + (inside[line] if line.endswith("/") else "") for line in counts]

    def apply(self) -> None:
        """Writes the changes.

        Raises:
            FileError: a file can't be written; the message names it.
        """
        for plan in self.vendor:
            apply_plan(plan)
        for edit in self.manifests:
            if edit.changes:
                try:
                    apply.write(edit.path, edit.before, edit.after)
                except FileError as error:
                    raise FileError(f"{quoted(edit.name)}: {error}") from error


def plan_extras(outcomes: Iterable[Outcome], *, vendor: bool, dependency: bool, force: bool) -> Extras:
    """What the scripts of a run need beside themselves. Writes nothing.

    Raises:
        FileError: the runtime to copy is not installed, was modified in the target, or a manifest can't be read.
    """
    scripts = _by_base(outcomes, Status.CHANGED, Status.INTEGRATED)
    copies, edits, notes = [], [], []
    for base, names in scripts.items():
        if vendor:
            copies.append(plan_vendor(base, names, force=force))
            continue
        blocks = {name: block for name in names if (block := read_block(base / name)) is not None}
        notes += [
            f"{quoted(name)} lists its own dependencies: add {missing!r} there."
            for name, block in blocks.items()
            if (missing := block.lacking) is not None
        ]
        others = [name for name in names if name not in blocks]
        manifests = find_manifests(base, others)
        if others and not dependency:
            notes.append(suggestion(manifests))
        for manifest in manifests if dependency else ():
            try:
                edits.append(added(manifest))
            except CannotAdd as error:
                notes.append(f"{quoted(manifest.name)} {error}.")
    notes += [f"Run `{command}`." for command in lock_commands(edits)]
    return Extras(tuple(copies), tuple(edits), tuple(note for note in notes if note))


def plan_removal_of_extras(outcomes: Iterable[Outcome], *, dependency: bool, force: bool) -> Extras:
    """What a revert takes out beside the scripts' own lines, of what no other script needs: the copy of the runtime,
    and the requirement in the form in which `plan_extras` adds it.

    The requirement is looked for where scripts are reverted, and with `dependency` wherever the run looked: whoever
    lists the runtime without a patched script has written that line by hand.

    Raises:
        FileError: a file of the copy, or a script, can't be read.
    """
    outcomes = list(outcomes)
    copies, edits, notes = [], [], []
    reverted = _by_base(outcomes, Status.REVERTED)
    for base, names in _by_base(outcomes, *Status).items():
        gone = set(reverted.get(base, ()))
        copies.append(plan_removal(base, gone, force=force))
        still = [name for name in needed_by(base) if name not in gone]
        try:
            kept = {manifest.name for manifest in find_manifests(base, still)}
            manifests = find_manifests(base, names if dependency else gone)
            edits += [removed(manifest) for manifest in manifests if manifest.name not in kept]
        except FileError as error:
            notes.append(f"{error}; if it lists {PACKAGE}, take that out by hand.")
    notes += [f"Run `{command}`." for command in lock_commands(edits)]
    return Extras(tuple(copies), tuple(edits), tuple(notes))


def _by_base(outcomes: Iterable[Outcome], *statuses: Status) -> dict[Path, list[PurePosixPath]]:
    names: dict[Path, list[PurePosixPath]] = {}
    for outcome in outcomes:
        if outcome.status in statuses:
            names.setdefault(outcome.base, []).append(outcome.name)
    return names


def _described(change: Change | ManifestEdit, dry_run: bool) -> str:
    verb, done = ("remove", "removed") if change.after is None else ("write", "wrote")
    name = f"{COPY}/" if COPY in change.name.parents else quoted(change.name)
    return f"would {verb} {name}" if dry_run else f"{done} {name}"
