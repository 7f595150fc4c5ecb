"""`--vendor`: a copy of the runtime inside the target repo, for people who can't add a dependency
to it.

Python looks for a module beside the script that was started, not at the top of the repo, and a
patched script's import says nothing about paths. What a repo gets is therefore

- one copy of the package, `mlx_flash_runtime/` at the top of the repo, and
- in each other folder from which a patched script is started a short file `mlx_flash_runtime.py`,
  which loads that copy.

A copy in each folder would be dozens of files in each, to review and to keep equal. Symbolic links
do not survive a download as a zip, nor a checkout on Windows. A folder that is installed (`pip
install ./third_party/...`) is a dependency again. A file that is moved away from the copy raises
ImportError, so that its script runs on stock attention, as every patched script does without the
runtime. A package that is built into a wheel leaves the copy behind: there the runtime has to be a
dependency.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flash_integrate.disk import reading, writing
from flash_integrate.errors import FileError
from flash_integrate.inserted.snippets import RUNTIME
from flash_integrate.project.discover import IGNORE_FILE, Found, discover
from flash_integrate.project.scan import plain_lines
from flash_integrate.quoting import quoted
from flash_integrate.vendor.copied_files import (
    COPY,
    LOADER,
    Change,
    digest,
    is_own,
    manifest_change,
    read,
    recorded,
)
from flash_integrate.vendor.package_files import loader, package_files, started_from

# In a notebook a line of code starts after a quote, or after an escaped newline.
_RUNTIME_IMPORT = re.compile(
    rb'(?:^[ \t\f]*|(?:"|\\n)[ \t]*)(?:from|import)[ \t]+' + RUNTIME.encode() + rb"\b",
    re.MULTILINE,
)


@dataclass(frozen=True)
class VendorPlan:
    """What is to be written, and the files `modified` by hand since they were put there, which
    stay as they are."""

    changes: tuple[Change, ...] = ()
    modified: tuple[PurePosixPath, ...] = ()


def plan_vendor(top: Path, scripts: Iterable[PurePosixPath], *, force: bool = False) -> VendorPlan:
    """The changes after which each of `scripts` (patched, relative to `top`) finds the copy.
    Writes nothing.

    Files of earlier runs are brought up to date as well. With `force` what was modified by hand is
    replaced.

    Raises:
        FileError: the runtime is not installed, the manifest is not one that --vendor wrote, the
            copy is reached by links, or the update would replace files that were modified by hand.
    """
    package = package_files()
    known = recorded(top)
    folders = {folder for script in scripts for folder in started_from(top, script)}
    folders |= {
        name.parent for name in known if name.name == LOADER and (top / name.parent).is_dir()
    }
    wanted = package | {folder / LOADER: loader(folder) for folder in folders if folder.parts}
    changes, modified, refused = [], [], []
    for name in sorted({*wanted, *known}):
        before, after = read(top, name), wanted.get(name)
        if before == after:
            continue
        if before is None or force or digest(before) == known.get(name):
            changes.append(Change(top, name, before, after))
        elif after is not None and digest(after) == known.get(name):
            modified.append(name)
        else:
            refused.append(name)
    if (
        refused
    ):  # a copy of two versions at once would not run: it is updated as a whole or not at all
        names = "".join(f"\n  {quoted(name)}" for name in refused)
        raise FileError(
            f"these files are not as --vendor put them there; nothing was copied:{names}"
        )
    digests = {name: digest(data) for name, data in wanted.items()}
    return VendorPlan((*changes, *manifest_change(top, digests)), tuple(modified))


def plan_removal(
    top: Path, reverted: Collection[PurePosixPath] = (), *, force: bool = False
) -> VendorPlan:
    """The changes that take the copy out again. Empty while a script other than those `reverted`
    still imports it.

    What was modified by hand stays, unless `force` says otherwise, and stays in the manifest.

    Raises:
        FileError: a file of the copy can't be read or is reached by a link, or the manifest is not
            one that --vendor wrote.
    """
    known = recorded(top)
    if not known or any(name not in reverted for name in needed_by(top)):
        return VendorPlan()
    present = {name: data for name in known if (data := read(top, name)) is not None}
    modified = [name for name, data in present.items() if not force and digest(data) != known[name]]
    changes = [
        Change(top, name, data, None) for name, data in present.items() if name not in modified
    ]
    left = {name: known[name] for name in modified}
    return VendorPlan((*changes, *manifest_change(top, left)), tuple(modified))


def apply_plan(plan: VendorPlan) -> None:
    """Makes the changes, the manifest last: a run that was broken off is completed by the next one.

    Raises:
        FileError: a file can't be written or removed; the message names it.
    """
    for change in plan.changes:
        try:
            if change.after is None:
                writing.delete(change.path, change.top, change.before or b"")
                _tidy(change)
            elif change.before is None:
                writing.create(change.path, change.top, change.after)
            else:
                writing.write(change.path, change.top, change.before, change.after)
        except FileError as error:
            raise FileError(f"{quoted(change.name)}: {error}") from error


def needed_by(top: Path) -> list[PurePosixPath]:
    """The files of the repo that import the runtime, those of the copy aside. One that can't be
    read may do so."""
    return [
        found.name
        for found in discover([top])
        if not is_own(found.name) and _may_import_runtime(found)
    ]


def _may_import_runtime(found: Found) -> bool:
    if found.path.name == IGNORE_FILE:
        return False
    try:
        data = reading.read_if_there(found.path, found.base)
    except FileError:
        return True
    return data is not None and _RUNTIME_IMPORT.search(plain_lines(data)) is not None


def _tidy(change: Change) -> None:
    """Removes what Python compiled a deleted file to, and the folders of the copy that are empty
    by now."""
    cache = change.path.parent / "__pycache__"
    if not cache.is_symlink():
        for compiled in cache.glob(f"{glob.escape(change.path.stem)}.*.pyc"):
            writing.delete_compiled(compiled, change.top)
    depth = len(change.name.parts) - 1 if COPY in change.name.parents else 0
    for folder in (cache, *change.path.parents[:depth]):
        if folder.is_dir() and not folder.is_symlink():
            writing.delete_empty_folder(folder, change.top)
