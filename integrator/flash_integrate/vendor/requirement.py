"""A requirement as requirements files and pyproject.toml write it: its name, and on which machines
it holds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from flash_integrate.errors import FileError

PACKAGE = "mlx-flash-runtime"

_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:$|[\[(<>=!~;@,#])")
_URL = re.compile(r"\s*(?:-e\s+|--editable[ =])?(?:git\+)?((?:https?|ssh|file)://\S+)")


class CannotAdd(FileError):
    """A file to which the dependency can't be added safely; the message says why."""


def name_of(requirement: str) -> str | None:
    """The normalized name of what a requirement asks for, of a bare URL its repository's; None for
    any other text."""
    name = match.group(1) if (match := _NAME.match(requirement)) else _name_in_url(requirement)
    return re.sub(r"[-_.]+", "-", name).lower() if name else None


def _name_in_url(requirement: str) -> str:
    """The last part of a bare URL's path, without the revision behind it; nothing of any other
    text."""
    match = _URL.match(requirement)
    try:
        path = urlsplit(match.group(1)).path if match else ""
    except ValueError:  # it is no URL
        return ""
    return path.partition("@")[0].rpartition("/")[2].removesuffix(".git")


def is_mlx(name: str | None) -> bool:
    """Whether a name is that of MLX or a package built on it: mlx, mlx-lm, lightning-whisper-mlx;
    not the runtime."""
    return name is not None and name != PACKAGE and "mlx" in name.split("-")


def marker_of(requirement: str) -> str:
    """The environment marker: `sys_platform == "darwin"` of `mlx; sys_platform == "darwin"`, or
    nothing."""
    # A URL may hold a semicolon.
    separator = r"\s;" if _URL.match(requirement) or "@" in requirement else ";"
    parts = re.split(separator, requirement, maxsplit=1)
    return parts[1].strip() if len(parts) == 2 else ""


def requirement_beside(mlx: Iterable[str]) -> str:
    """The runtime as it is required beside these MLX requirements: on the machines on which one of
    them is."""
    markers = list(dict.fromkeys(map(marker_of, mlx)))
    if not markers or not all(markers):
        return PACKAGE
    return f"{PACKAGE}; " + (
        markers[0] if len(markers) == 1 else " or ".join(f"({marker})" for marker in markers)
    )
