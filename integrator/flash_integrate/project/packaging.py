"""The commands that a project's packaging installs: which function of which file each one
starts."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from flash_integrate.project.imports import Project
from flash_integrate.project.ini import read_ini
from flash_integrate.project.scan import Import
from flash_integrate.project.toml import NotToml, read_toml, table_at

_TABLES = (
    ("project", "scripts"),
    ("project", "gui-scripts"),
    ("tool", "poetry", "scripts"),
    ("tool", "flit", "scripts"),
)
_OPTIONS = ("console_scripts", "gui_scripts")
# In setup.py, as a list under its name, or as the text of a section.
_LIST = re.compile(r"(?:console|gui)_scripts[\"']?\s*[:=]\s*\[")
_SECTION = re.compile(r"\[(?:console|gui)_scripts\]([^\[\"']*)")
_ENTRY_POINT = re.compile(r"([\w.-]*)\s*=\s*([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Command:
    """A command that packaging installs, and what it runs: a name in a file of the project."""

    name: str
    home: PurePosixPath
    function: str


def entry_points(project: Project) -> Iterator[Command]:
    """The commands that the project's manifests install."""
    for folder in project.folders:
        for manifest, commands in _READERS.items():
            text = project.manifest(folder / manifest)
            for name, module, function in _ENTRY_POINT.findall(commands(text)) if text else ():
                for target in project.resolve(Import(0, module), folder / manifest):
                    yield Command(name, target, function)


def _of_pyproject(text: str) -> str:
    """The commands as lines, `name = module:function`; so below."""
    try:
        document = read_toml(text)
    except NotToml:
        return ""
    found = {name: value for keys in _TABLES for name, value in table_at(document, keys).items()}
    lines = []
    for name, value in found.items():
        # Poetry also has tables here, for extras.
        reference = value.get("reference") if isinstance(value, dict) else value
        lines.append(f"{name} = {reference}")
    return "\n".join(lines)


def _of_setup_cfg(text: str) -> str:
    try:
        parser = read_ini(text)
    except configparser.Error:
        return ""
    return "\n".join(parser.get("options.entry_points", option, fallback="") for option in _OPTIONS)


def _of_setup_py(text: str) -> str:
    return "\n".join([*_lists(text), *_SECTION.findall(text)])


def _lists(text: str) -> Iterator[str]:
    """What stands in the brackets of each list of commands."""
    end = 0
    while (opening := _LIST.search(text, end)) is not None and (
        end := text.find("]", opening.end())
    ) >= 0:
        yield text[opening.end() : end]


_READERS = {"pyproject.toml": _of_pyproject, "setup.cfg": _of_setup_cfg, "setup.py": _of_setup_py}
