"""`VENDORED.json` in the copy: every file that --vendor put there, with its hash. Only what still
is as it was put there is replaced or removed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

from flash_integrate.disk import reading
from flash_integrate.errors import FileError
from flash_integrate.inserted.snippets import RUNTIME
from flash_integrate.quoting import quoted
from flash_integrate.report.diff import file_diff
from flash_integrate.vendor.requirement import PACKAGE

COPY = PurePosixPath(RUNTIME)
LOADER = f"{RUNTIME}.py"
MANIFEST = COPY / "VENDORED.json"
NOTE = "put here by flash-integrate --vendor; the same command updates it, --revert removes it"


@dataclass(frozen=True)
class Change:
    """One file of the copy: `before` is None where it is created, `after` where it is removed."""

    top: Path
    name: PurePosixPath
    before: bytes | None
    after: bytes | None

    @property
    def path(self) -> Path:
        return self.top / self.name

    def diff(self) -> Iterator[bytes]:
        """The lines of its diff, as `git apply` takes them."""
        return file_diff(self.name.as_posix(), self.before, self.after)


def recorded(top: Path) -> dict[PurePosixPath, str]:
    """The files that earlier runs put into the repo, with the hashes that they had."""
    data = read(top, MANIFEST)
    if data is None:
        return {}
    try:
        files = {
            PurePosixPath(name): str(digest) for name, digest in json.loads(data)["files"].items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FileError(f"{MANIFEST} is not as --vendor wrote it") from error
    for name in files:
        if not is_own(name):
            raise FileError(
                f"{MANIFEST} names {str(name)!r}, where --vendor puts no file: "
                "it was written by somebody else. Nothing that it names is touched; "
                f"remove the folder {COPY} by hand if it is not yours"
            )
    return files


def is_own(name: PurePosixPath) -> bool:
    """Whether a file of this name can be one that --vendor put there: in the copy, or a module
    that loads it."""
    if name.is_absolute() or ".." in name.parts:
        return False
    return name.name == LOADER or (COPY in name.parents and name != MANIFEST)


def manifest_change(top: Path, digests: dict[PurePosixPath, str]) -> list[Change]:
    """The change, if there is one, after which the manifest lists these files; without files there
    is no manifest."""
    files = {name.as_posix(): digests[name] for name in sorted(digests)}
    document = {"note": NOTE, "version": _version(), "files": files}
    before = read(top, MANIFEST)
    after = (json.dumps(document, indent=2) + "\n").encode() if digests else None
    return [] if before == after else [Change(top, MANIFEST, before, after)]


def _version() -> str | None:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:  # a package that lies on the path without having been installed
        return None


def digest(data: bytes) -> str:
    """The hash of a file as it is recorded."""
    return hashlib.sha256(data).hexdigest()


def read(top: Path, name: PurePosixPath) -> bytes | None:
    """The bytes of a file of the copy; None if there is none. No link leads to one that --vendor
    has made.

    Raises:
        FileError: it can't be read, or is reached by a link.
    """
    try:
        if reading.inside(top / name, top, missing=True) != top / name:
            raise FileError("is reached by a link, and --vendor makes none")
        return reading.read_if_there(top / name, top, reading.SETTINGS_LIMIT)
    except FileError as error:
        raise FileError(f"{quoted(name)}: {error}") from error
