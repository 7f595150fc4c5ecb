"""The packages that the distributions of a tree install, and where in the tree they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from flash_integrate.project.toml import NotToml, read_toml, table_at

_HATCH = (
    ("tool", "hatch", "build", "sources"),
    ("tool", "hatch", "build", "targets", "wheel", "sources"),
)
_SETUPTOOLS = ("tool", "setuptools", "package-dir")


def installed_packages(
    files: Iterable[PurePosixPath],
    folders: Iterable[PurePosixPath],
    manifest: Callable[[PurePosixPath], str],
) -> dict[str, PurePosixPath]:
    """The folder of each package that a distribution of the tree installs, by the name that it has
    then: those beside a `pyproject.toml` or `setup.py`, or in the `src` beside it, and those that
    hatch's `sources` or setuptools' `package-dir` rename. A name that several distributions have is
    left out. `manifest` gives the text of a `pyproject.toml`, which is empty where there is none;
    one that is no TOML renames nothing."""
    manifests = {folder: manifest(folder / "pyproject.toml") for folder in folders}
    distributions = {folder for folder, text in manifests.items() if text}
    distributions |= {file.parent for file in files if file.name == "setup.py"}
    found = defaultdict(set)
    for file in files:
        package = file.parent
        if file.name == "__init__.py" and not distributions.isdisjoint(_installing(package)):
            found[package.name].add(package)
    own = {name: places.pop() for name, places in found.items() if len(places) == 1}
    for folder, text in manifests.items():
        own |= _renamed(folder, text)
    return own


def _installing(package: PurePosixPath) -> list[PurePosixPath]:
    """The folders whose distribution would install a package."""
    beside = package.parent
    return [beside, beside.parent] if beside.name == "src" else [beside]


def _renamed(folder: PurePosixPath, text: str) -> dict[str, PurePosixPath]:
    """The packages that a `pyproject.toml` in a folder installs under another name."""
    try:
        document = read_toml(text)
    except NotToml:
        return {}
    return {
        name: folder / place
        for name, place in _pairs(document)
        if name.isidentifier() and place != name
    }


def _pairs(document: Any) -> Iterator[tuple[str, str]]:
    """Names of packages with their folders."""
    for keys in _HATCH:
        yield from ((name, place) for place, name in _texts(document, keys))
    yield from _texts(document, _SETUPTOOLS)


def _texts(document: Any, keys: tuple[str, ...]) -> list[tuple[str, str]]:
    table = table_at(document, keys)
    return [(key, value) for key, value in table.items() if isinstance(value, str)]
