"""The functions that a project's packaging installs as commands."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import PurePosixPath

from flash_integrate.project.packaging import entry_points
from flash_integrate.project.workspace import FileFacts, Workspace
from flash_integrate.python.syntax import Function, Statement, assignments, dotted, walk

_MOST_WRAPPERS = 4
"""Through so many names and wrappers an installed one is followed."""


def installed(workspace: Workspace) -> dict[PurePosixPath, dict[str, str]]:
    """For each file of the project the names in it that are installed as commands, with the
    command; also those that such a name wraps: of `menu = checked(main)` also `main`."""
    found: dict[PurePosixPath, dict[str, str]] = {}
    for command in entry_points(workspace.project):
        for home, name in _behind(workspace, command.home, command.function, _MOST_WRAPPERS):
            found.setdefault(home, {}).setdefault(name, command.name)
    return found


def _behind(
    workspace: Workspace, path: PurePosixPath, name: str, depth: int
) -> Iterator[tuple[PurePosixPath, str]]:
    """The file that defines a name, with its name there, and the same for the names in its
    value."""
    home, name = workspace.names.home(path, name) or (path, name)
    yield home, name
    symbols = workspace.names.symbols(home)  # None: the file can't be parsed
    if symbols is None or name not in symbols.definitions or not depth:
        return
    for bound, value in assignments(workspace.module(home).definitions[name]):
        for wrapped in map(dotted, _wrapped(value)) if bound == name else ():
            if wrapped is not None:
                yield from _behind(workspace, home, wrapped, depth - 1)


def _wrapped(value: ast.expr) -> list[ast.expr]:
    """What a value that is called may call in its turn: of `checked(main)` it is `main`, and so of
    `lambda: main()`."""
    if isinstance(value, ast.Lambda):
        return [part.func for part in walk(value) if isinstance(part, ast.Call)]
    return value.args if isinstance(value, ast.Call) else [value]


def installed_names(facts: FileFacts) -> dict[str, str]:
    """The names in a file that are installed as commands, with the command."""
    return facts.workspace.get(installed).get(facts.name, {})


def console_functions(facts: FileFacts) -> list[Statement]:
    """The functions of a file that are installed as commands."""
    names = installed_names(facts)
    return [
        item
        for item in facts.module_level
        if isinstance(item.node, Function) and item.node.name in names
    ]
