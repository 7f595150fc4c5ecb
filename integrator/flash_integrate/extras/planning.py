"""What goes with the patched scripts where it is asked for: a copy of the runtime, the entry in the requirements."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flash_integrate import apply
from flash_integrate.errors import FileError
from flash_integrate.extras.dependency import ManifestEdit, added, find_manifests, lock_commands, removed, suggestion
from flash_integrate.extras.requirement import CannotAdd
from flash_integrate.extras.vendor import Change, VendorPlan, apply_plan, needed_by, plan_removal, plan_vendor
from flash_integrate.plan import Status
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

    @property
    def overwritten(self) -> list[Path]:
        """The files that exist already and would be written over."""
        return [change.path for change in self.changes if change.before is not None]

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
                    raise FileError(f"{edit.name}: {error}") from error


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
        manifests = find_manifests(base, names)
        if not dependency:
            notes.append(suggestion(manifests))
        for manifest in manifests if dependency else ():
            try:
                edits.append(added(manifest))
            except CannotAdd as error:
                notes.append(f"{manifest.name} {error}.")
    notes += [f"Run `{command}`." for command in lock_commands(edits)]
    return Extras(tuple(copies), tuple(edits), tuple(note for note in notes if note))


def plan_removal_of_extras(outcomes: Iterable[Outcome], *, dependency: bool, force: bool) -> Extras:
    """What a revert takes out beside the scripts' own lines: the copy always, the requirement if it is asked for.

    Raises:
        FileError: a file of the copy or a manifest can't be read, or has to be edited by hand.
    """
    copies, edits = [], []
    for base, names in _by_base(outcomes, Status.REVERTED).items():
        copies.append(plan_removal(base, names, force=force))
        if dependency and set(needed_by(base)) <= set(names):
            edits += [removed(manifest) for manifest in find_manifests(base, names)]
    return Extras(tuple(copies), tuple(edits))


def _by_base(outcomes: Iterable[Outcome], *statuses: Status) -> dict[Path, list[PurePosixPath]]:
    names: dict[Path, list[PurePosixPath]] = {}
    for outcome in outcomes:
        if outcome.status in statuses:
            names.setdefault(outcome.base, []).append(outcome.name)
    return names
