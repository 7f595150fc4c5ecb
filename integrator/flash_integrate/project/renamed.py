"""Packages that are installed under another name than that of their folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from flash_integrate.project.toml import NotToml, read_toml, table_at

_HATCH = (
    ("tool", "hatch", "build", "sources"),
    ("tool", "hatch", "build", "targets", "wheel", "sources"),
)
_SETUPTOOLS = ("tool", "setuptools", "package-dir")


def renamed_packages(
    folders: Iterable[PurePosixPath], manifest: Callable[[PurePosixPath], str]
) -> dict[str, PurePosixPath]:
    """The folder of each package that a `pyproject.toml` in one of some folders installs under
    another name: hatch's `sources`, setuptools' `package-dir`. `manifest` gives such a file's text,
    which is empty where there is none; one that is no TOML has none."""
    found = {}
    for folder in folders:
        try:
            document = read_toml(manifest(folder / "pyproject.toml"))
        except NotToml:
            continue
        for name, place in _pairs(document):
            if name.isidentifier() and place != name:
                found[name] = folder / place
    return found


def _pairs(document: Any) -> Iterator[tuple[str, str]]:
    """Names of packages with their folders."""
    for keys in _HATCH:
        yield from ((name, place) for place, name in _texts(document, keys))
    yield from _texts(document, _SETUPTOOLS)


def _texts(document: Any, keys: tuple[str, ...]) -> list[tuple[str, str]]:
    table = table_at(document, keys)
    return [(key, value) for key, value in table.items() if isinstance(value, str)]
