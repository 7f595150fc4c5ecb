"""A requirement as requirements files and pyproject.toml write it: its name, and on which machines
it holds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flash_integrate.errors import FileError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PACKAGE = "mlx-flash-runtime"

_URL = re.compile(r"(?:-e\s+|--editable[ =])?(?:git\+)?((?:https?|ssh|file)://\S+)")
# pip's own options behind a requirement: `mlx==0.30 --hash=sha256:...`.
_OPTIONS = re.compile(r"\s--.*")


class CannotAdd(FileError):
    """A file to which the dependency can't be added safely; the message says why."""


def name_of(requirement: str) -> str | None:
    """The normalized name of what a requirement asks for, of a bare URL its repository's; None for
    any other text."""
    parsed = _parsed(requirement)
    name = parsed.name if parsed is not None else _name_in_url(requirement.strip())
    return _canonical(name) if name else None


# packaging is imported where a requirement is read: most runs read none.


def _canonical(name: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)


def _parsed(requirement: str) -> Requirement | None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(_OPTIONS.sub("", requirement.strip()))
    except InvalidRequirement:
        return None


def _name_in_url(requirement: str) -> str:
    """The last part of a bare URL's path, without the revision behind it; nothing of any other
    text."""
    match = _URL.match(requirement)
    try:
        path = urlsplit(match[1]).path if match else ""
    except ValueError:  # it is no URL
        return ""
    return path.partition("@")[0].rpartition("/")[2].removesuffix(".git")


def is_mlx(name: str | None) -> bool:
    """Whether a name is that of MLX or a package built on it: mlx, mlx-lm, lightning-whisper-mlx;
    not the runtime."""
    return name is not None and name != PACKAGE and "mlx" in name.split("-")


def marker_of(requirement: str) -> str:
    """The environment marker, in the quotes that it is written with: `sys_platform == 'darwin'` of
    `mlx; sys_platform == 'darwin'`, or nothing."""
    parsed = _parsed(requirement)
    has_one = parsed is not None and parsed.marker is not None
    return _OPTIONS.sub("", requirement).rpartition(";")[2].strip() if has_one else ""


def is_own(requirement: str) -> bool:
    """Whether it is the runtime as `requirement_beside` writes it. One with a version or extras is
    the user's own."""
    parsed = _parsed(requirement)
    if parsed is None or _canonical(parsed.name) != PACKAGE:
        return False
    return not parsed.specifier and not parsed.extras


def requirement_beside(mlx: Iterable[str], runtime: str) -> str:
    """The `runtime` as it is required beside these MLX requirements: on the machines on which one
    of them is."""
    markers = list(dict.fromkeys(map(marker_of, mlx)))
    if not markers or not all(markers):
        return runtime
    if len(markers) > 1:
        markers = [" or ".join(f"({marker})" for marker in markers)]
    # Behind an address a blank tells that it has ended.
    return f"{runtime}{' ' if '@' in runtime else ''}; {markers[0]}"
