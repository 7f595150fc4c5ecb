"""The width that a repo's formatter gives its lines, from the repo's own configuration."""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flash_integrate.disk.reading import SETTINGS_LIMIT, read_if_there
from flash_integrate.errors import FileError
from flash_integrate.project.ini import read_ini
from flash_integrate.project.toml import NotToml, read_toml

DEFAULT = 88
"""Columns, where nothing is set: black's default, and ruff's."""


def line_width(folder: Path, top: Path) -> int:
    """The columns of a line for files in `folder`: what the nearest configuration of black or ruff
    says, looked for up to `top`.

    Without one both write 88 columns; then a smaller limit of the linters (`setup.cfg`) or the
    editor (`.editorconfig`) counts. What can't be read says nothing.
    """
    folders = [parent for parent in (folder, *folder.parents) if parent.is_relative_to(top)]
    for parent in folders:
        for table in _formatter_tables(parent, top):
            return _columns(table.get("line-length")) or DEFAULT
    for parent in folders:
        for limit in _limits(parent, top):
            return min(limit, DEFAULT)
    return DEFAULT


def _formatter_tables(folder: Path, top: Path) -> Iterator[dict[str, Any]]:
    """The tables of the formatters that a folder configures, black's first."""
    tool = _toml(folder / "pyproject.toml", top).get("tool", {})
    own = [tool.get(name) for name in ("black", "ruff")] if isinstance(tool, dict) else []
    own += [_toml(folder / name, top) or None for name in ("ruff.toml", ".ruff.toml")]
    yield from (table for table in own if isinstance(table, dict))


def _limits(folder: Path, top: Path) -> Iterator[int]:
    """The limits of a folder's linters and editors, in columns."""
    places = {
        "setup.cfg": (("flake8", "max-line-length"), ("pycodestyle", "max-line-length")),
        ".editorconfig": (("*.py", "max_line_length"), ("*", "max_line_length")),
    }
    for name, options in places.items():
        try:
            # What stands above the first section of an .editorconfig belongs to none.
            parser = read_ini("[top]\n" + _text(folder / name, top))
        except configparser.Error:
            continue
        values = [parser.get(*option, fallback=None) for option in options]
        yield from (columns for value in values if (columns := _columns(value)) is not None)


def _columns(value: object) -> int | None:
    """A setting as a number of columns, None if it is none."""
    if isinstance(value, str):
        value = int(value) if value.strip().isdecimal() else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _toml(file: Path, top: Path) -> dict[str, Any]:
    try:
        return read_toml(_text(file, top))
    except NotToml:
        return {}


def _text(file: Path, top: Path) -> str:
    try:
        data = read_if_there(file, top, SETTINGS_LIMIT)
    except FileError:
        return ""
    return (data or b"").decode(errors="replace")
