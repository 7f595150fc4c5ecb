"""The ways to start a file's attention that pass by every call; those by commands of libraries are
in `children`."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from itertools import takewhile

from flash_integrate.attention.signs import has_attention, leads_to_attention, reached
from flash_integrate.inserted.snippets import ENABLE
from flash_integrate.notes import Uncovered
from flash_integrate.planning.installed import installed_names
from flash_integrate.project.factories import application_names
from flash_integrate.project.processes import Processes
from flash_integrate.project.programs import unknown_programs
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.edits import Edit, Insertion


def uncovered_commands(facts: FileFacts, reason: str) -> Iterator[Uncovered]:
    """The installed commands of a file that stays as it is, whose functions run attention."""
    for name, command in installed_names(facts).items():
        node = facts.module.defines(name)  # what a variable wraps is looked at where it is defined
        if node is not None and leads_to_attention(facts, name):
            yield Uncovered(reason, node.lineno, f"the command {command}")


def uncovered_lambdas(facts: FileFacts, edits: Sequence[Edit]) -> Iterator[Uncovered]:
    """The installed commands of a file that are a lambda which runs attention itself."""
    for name, command in () if runs_on_import(edits) else installed_names(facts).items():
        node = facts.module.definitions.get(name)
        value = node.value if isinstance(node, ast.Assign) else None
        if node is not None and isinstance(value, ast.Lambda) and has_attention(facts, node):
            reason = "no line can be inserted into a lambda"
            yield Uncovered(reason, node.lineno, f"the command {command}")


def uncovered_servers(facts: FileFacts, edits: Sequence[Edit]) -> Iterator[Uncovered]:
    """The application of a file whose call is below its command line, which a server that imports
    it does not read."""
    if not runs_on_import(edits):
        for name, line in application_names(facts):
            reason = "the call is made by the file's own command line alone"
            yield Uncovered(reason, line, f"a server that imports {_module(facts)}:{name}")


def _module(facts: FileFacts) -> str:
    """The name under which a server imports a file: with the packages that it is in."""
    scans = facts.workspace.project.scans
    folders = takewhile(lambda folder: folder / "__init__.py" in scans, facts.name.parents)
    packages = [folder.name for folder in folders if folder.name]
    return ".".join([*reversed(packages), facts.name.stem])


def uncovered_processes(facts: FileFacts) -> Iterator[Uncovered]:
    """The processes that a file starts, where what they run was not found."""
    lost = [item.line for item in facts.workspace.get(Processes).lost(facts.name)]
    lost += unknown_programs(facts)
    if not lost or not facts.get(reached):
        return
    for line in lost:
        reason = (
            "what it runs was not found in the project; "
            "enable_flash_attention(inherit=True) in there does what this file does"
        )
        yield Uncovered(reason, line, "the process started here")


def runs_on_import(edits: Sequence[Edit]) -> bool:
    """Whether one of the calls stands at module level, where whoever imports the file makes it."""
    calls = [item for item in edits if isinstance(item, Insertion) and ENABLE in item.code]
    return any(len(item.anchor or ()) < 2 for item in calls)
