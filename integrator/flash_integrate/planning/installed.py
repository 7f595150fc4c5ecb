"""The functions that a project's packaging installs as commands."""

from __future__ import annotations

from pathlib import PurePosixPath

from flash_integrate.project.packaging import entry_points
from flash_integrate.project.workspace import FileFacts, Workspace
from flash_integrate.python.syntax import Function, Statement


def console_scripts(workspace: Workspace) -> dict[PurePosixPath, set[str]]:
    """For each file of the project the names of its functions that are installed as commands."""
    found: dict[PurePosixPath, set[str]] = {}
    for named in entry_points(workspace.project):
        home, function = workspace.names.home(*named) or named
        found.setdefault(home, set()).add(function)
    return found


def console_functions(facts: FileFacts) -> list[Statement]:
    """The functions of a file that are installed as commands."""
    names = facts.workspace.get(console_scripts).get(facts.name, set())
    return [
        item
        for item in facts.module_level
        if isinstance(item.node, Function) and item.node.name in names
    ]
