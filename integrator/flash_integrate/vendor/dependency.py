"""`--add-dependency`: which files of the target list MLX and so should list the runtime, and the
edits that do it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flash_integrate.disk import reading
from flash_integrate.errors import FileError
from flash_integrate.python.source import split_lines
from flash_integrate.quoting import quoted
from flash_integrate.report.diff import file_diff, unified_diff
from flash_integrate.vendor.origin import Origin
from flash_integrate.vendor.pyproject_toml import (
    add_to_pyproject,
    pyproject_lists_mlx,
    remove_from_pyproject,
)
from flash_integrate.vendor.requirement import CannotAdd
from flash_integrate.vendor.requirements_txt import (
    add_to_requirements,
    remove_from_requirements,
    requirements_list_mlx,
)

PYPROJECT = "pyproject.toml"
_LOCKS = {"uv.lock": "uv lock", "poetry.lock": "poetry lock", "pdm.lock": "pdm lock"}


@dataclass(frozen=True)
class Manifest:
    """A requirements file or pyproject.toml that lists MLX; `name` is its path from the top of the
    repo. Of a link it is the target, which is what is edited."""

    top: Path
    name: PurePosixPath
    data: bytes

    @property
    def is_pyproject(self) -> bool:
        # Also under the name that a link called pyproject.toml leads to.
        return self.name.suffix == ".toml"


@dataclass(frozen=True)
class ManifestEdit:
    """A manifest with the runtime added, or (`removes`) taken out again."""

    top: Path
    name: PurePosixPath
    before: bytes
    after: bytes
    removes: bool

    @property
    def path(self) -> Path:
        return self.top / self.name

    @property
    def changes(self) -> bool:
        return self.before != self.after

    @property
    def lines(self) -> frozenset[int] | None:
        """The numbers of the whole lines that the longer file has more; None if a line was edited
        in its middle."""
        shorter, longer = (self.after, self.before) if self.removes else (self.before, self.after)
        return _more_lines(split_lines(shorter), split_lines(longer))

    def diff(self) -> Iterator[bytes]:
        """The lines of its diff, as `git apply` takes them."""
        if self.lines is None:
            return file_diff(self.name.as_posix(), self.before, self.after)
        return unified_diff(
            self.name.as_posix(), self.before, self.after, set(self.lines), removes=self.removes
        )


@dataclass(frozen=True)
class Manifests:
    """What was `found`, and the `problems` of the files that can't be read or are not valid, each
    with its name."""

    found: list[Manifest]
    problems: list[str]


def find_manifests(top: Path, scripts: Iterable[PurePosixPath]) -> Manifests:
    """The manifests that list MLX for any of `scripts` (relative to `top`): those of the nearest
    folder with some."""
    found: dict[PurePosixPath, Manifest] = {}
    problems: list[str] = []
    by_folder: dict[PurePosixPath, list[Manifest]] = {}
    for script in scripts:
        for folder in script.parents:
            if folder not in by_folder:
                by_folder[folder] = list(_manifests_in(top, folder, problems))
            if by_folder[folder]:
                found.update((manifest.name, manifest) for manifest in by_folder[folder])
                break
    return Manifests([found[name] for name in sorted(found)], problems)


def added(manifest: Manifest, origin: Origin) -> ManifestEdit:
    """The manifest with the runtime, from `origin`, in it; no change if it is listed already.

    Raises:
        CannotAdd: it has to be done by hand; the message, put after the manifest's name, says why.
    """
    add = add_to_pyproject if manifest.is_pyproject else add_to_requirements
    after = add(manifest.data, origin)
    return ManifestEdit(manifest.top, manifest.name, manifest.data, after, removes=False)


def removed(manifest: Manifest) -> ManifestEdit:
    """The manifest without what `added` writes; a requirement that was given a version is left.

    Raises:
        CannotRemove: it has to be done by hand; the message says why.
    """
    remove = remove_from_pyproject if manifest.is_pyproject else remove_from_requirements
    return ManifestEdit(
        manifest.top, manifest.name, manifest.data, remove(manifest.data), removes=True
    )


def suggestion(manifests: Sequence[Manifest], origin: Origin) -> list[str]:
    """What to tell the user after the scripts were patched; nothing if every manifest lists the
    runtime."""
    new = origin.requirement
    if not manifests:
        lines = [
            "No requirements file or pyproject.toml lists MLX. "
            f"Where the scripts run: pip install {shlex.quote(new)}"
        ]
        return [*lines, origin.remark] if origin.remark else lines
    todo, by_hand = [], []
    for manifest in manifests:
        try:
            if added(manifest, origin).changes:
                todo.append(quoted(manifest.name))
        except CannotAdd as error:
            by_hand.append(f"{quoted(manifest.name)} {error}.")
    lines = [f"Add {new!r} to {', '.join(todo)}; --add-dependency does it."] if todo else []
    if todo and origin.remark:
        lines.append(origin.remark)
    return [*lines, *by_hand]


def lock_commands(edits: Iterable[ManifestEdit]) -> list[str]:
    """What to run after the edits, for the lock files that lie beside them: `uv lock`."""
    folders = {edit.path.parent for edit in edits if edit.changes and edit.path.suffix == ".toml"}
    return sorted(
        {
            command
            for folder in folders
            for lock, command in _LOCKS.items()
            if (folder / lock).exists()
        }
    )


def _manifests_in(top: Path, folder: PurePosixPath, problems: list[str]) -> Iterator[Manifest]:
    here = top / folder
    for path in sorted(
        [*here.glob("requirements*.txt"), *here.glob("requirements/*.txt"), *here.glob(PYPROJECT)]
    ):
        try:
            manifest = _read_manifest(top, path)
        except FileError as error:
            problems.append(f"{quoted(path.relative_to(top))}: {error}")
        else:
            if manifest is not None:
                yield manifest


def _read_manifest(top: Path, path: Path) -> Manifest | None:
    """The manifest at `path`; None if it lists no MLX."""
    data = reading.read_if_there(path, top, reading.SETTINGS_LIMIT)
    if data is None:
        return None
    manifest = Manifest(top, PurePosixPath(path.resolve().relative_to(top).as_posix()), data)
    lists_mlx = pyproject_lists_mlx(data) if manifest.is_pyproject else requirements_list_mlx(data)
    return manifest if lists_mlx else None


def _more_lines(shorter: list[bytes], longer: list[bytes]) -> frozenset[int] | None:
    """The numbers of the lines that `longer` has more, None if that is not all that differs.

    A last line may gain or lose its newline.
    """
    rest = shorter[::-1]
    numbers = set()
    for number, line in enumerate(longer, start=1):
        if rest and (
            line == rest[-1] or (len(rest) == 1 and line.rstrip(b"\r\n") == rest[0].rstrip(b"\r\n"))
        ):
            rest.pop()
        else:
            numbers.add(number)
    return None if rest else frozenset(numbers)
