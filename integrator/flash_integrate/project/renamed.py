"""Packages that are installed under another name than that of their folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from flash_integrate.errors import FileError
from flash_integrate.project.toml import NotToml, read_toml

_HATCH = (
    ("tool", "hatch", "build", "sources"),
    ("tool", "hatch", "build", "targets", "wheel", "sources"),
)
_SETUPTOOLS = ("tool", "setuptools", "package-dir")


def renamed_packages(
    folders: Iterable[PurePosixPath], read: Callable[[PurePosixPath], bytes]
) -> dict[str, PurePosixPath]:
    """The folder of each package that a `pyproject.toml` in one of some folders installs under
    another name: hatch's `sources`, setuptools' `package-dir`. One that can't be read has none."""
    found = {}
    for folder in sorted(folders):
        try:
            text = read(folder / "pyproject.toml").decode(errors="replace")
            document = read_toml(text)
        except (FileError, NotToml):
            continue
        for name, place in _pairs(document):
            if name.isidentifier() and place != name:
                found[name] = folder / place
    return found


def _pairs(document: Any) -> Iterator[tuple[str, str]]:
    """Names of packages with their folders."""
    for keys in _HATCH:
        yield from ((name, place) for place, name in _table(document, keys))
    yield from _table(document, _SETUPTOOLS)


def _table(document: Any, keys: tuple[str, ...]) -> list[tuple[str, str]]:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    items = document.items() if isinstance(document, dict) else ()
    return [(key, value) for key, value in items if isinstance(value, str)]
