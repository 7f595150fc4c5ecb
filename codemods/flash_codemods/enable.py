"""The patch call, with the import of the runtime, at the places that codemods have in common."""

from __future__ import annotations

from collections.abc import Iterable

from flash_integrate.inserted.snippets import enable, enable_inherited
from flash_integrate.planning.starts import Starts
from flash_integrate.project.programs import started_programs
from flash_integrate.project.workspace import FileFacts, InsertionPoint
from flash_integrate.python.edits import Insertion


def enable_below_imports(facts: FileFacts) -> Insertion:
    """The call at module level, below the imports, a blank line above."""
    return _below_imports(facts, _own_call(facts, 0))


def inherit_below_imports(facts: FileFacts) -> Insertion:
    """As `enable_below_imports`, the call of a module that others may import too."""
    return _below_imports(facts, enable_inherited(facts.style, 0))


def _below_imports(facts: FileFacts, code: str) -> Insertion:
    anchor = facts.get(Starts).import_anchor
    if anchor is None:
        return Insertion(None, code, before=True)
    return Insertion(anchor.steps, "\n" + code)


def enable_at(facts: FileFacts, points: Iterable[InsertionPoint]) -> list[Insertion]:
    """The call at each of the points, or below the import of MLX that follows."""
    below = [facts.get(Starts).below_mlx_import(point) for point in points]
    return [
        Insertion(
            point.anchor, "\n" * point.is_apart + _own_call(facts, point.column), point.before
        )
        for point in below
    ]


def _own_call(facts: FileFacts, column: int) -> str:
    """The call of a program without flags; one that the project itself starts does what the program
    that starts it has chosen."""
    is_started = facts.name in facts.workspace.get(started_programs)
    return (enable_inherited if is_started else enable)(facts.style, column)


def inherit_at(facts: FileFacts, point: InsertionPoint) -> Insertion:
    """The call of a worker process at a point, or below the import of MLX that follows."""
    below = facts.get(Starts).below_mlx_import(point)
    code = "\n" * below.is_apart + enable_inherited(facts.style, below.column)
    return Insertion(below.anchor, code, below.before)
