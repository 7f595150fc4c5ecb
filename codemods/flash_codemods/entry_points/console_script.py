"""Functions that the project's packaging installs as commands. The call is the function's first
statement.

Inserts: the call, without flags: `MLX_FLASH_DISABLE` and `MLX_FLASH_BLOCK_SIZE` do
what flags would. A `__main__` guard that does not call such a function gets a call too, unless it
is written on one line, and a function that uses nothing of the project gets none.

Refuses: a function whose body shares its line with the `def`; functions that only start a file
which turns the runtime on itself.
"""

from __future__ import annotations

import ast

from flash_codemods.enable import enable_at
from flash_codemods.entry_points.started_elsewhere import handed_over
from flash_integrate.attention.signs import leads_to_attention
from flash_integrate.notes import Refusal
from flash_integrate.planning.installed import console_functions, installed_names
from flash_integrate.planning.starts import Starts
from flash_integrate.project.workspace import FileFacts, InsertionPoint
from flash_integrate.python.edits import Insertion
from flash_integrate.python.syntax import Statement, dotted, walk

ORDER = 19
SUMMARY = (
    "console scripts without a command line of their own: "
    "the call as first statement of the installed function"
)
REVIEW = "the function is the command's entry point in pyproject.toml, setup.cfg or setup.py"


def match(facts: FileFacts) -> list[InsertionPoint] | Refusal | None:
    functions = [item for item in facts.get(console_functions) if _may_attend(facts, item.node)]
    if not functions:
        return None
    handed = [handed_over(facts, getattr(item.node, "body", [])) for item in functions]
    functions = [item for item, refusal in zip(functions, handed, strict=True) if refusal is None]
    if not functions:
        return handed[0]
    points = [facts.first_line_of(function) for function in functions]
    if None in points:
        return Refusal("the function's body shares its line with the def", functions[0].line)
    points += [facts.first_line_of(guard) for guard in _guards_beside(facts)]
    return [point for point in points if point is not None]


def _may_attend(facts: FileFacts, function: ast.stmt) -> bool:
    """Whether a function comes to attention, or may by a function or class of the project that it
    uses: not one that clears a cache with the standard library alone."""
    if leads_to_attention(facts, getattr(function, "name", "")):
        return True
    names = {name for part in walk(function) if (name := dotted(part)) is not None}
    home = facts.workspace.names.home
    return any(facts.module.defines(name) or home(facts.name, name) for name in names)


def _guards_beside(facts: FileFacts) -> list[Statement]:
    """The guard, unless it starts an installed function."""
    starts = facts.get(Starts)
    calls = [
        node
        for statement in starts.guard_body
        for node in walk(statement)
        if isinstance(node, ast.Call)
    ]
    installed = installed_names(facts)
    starts_one = any(dotted(call.func) in installed for call in calls)
    needs_none = starts.guard is None or starts_one or handed_over(facts, starts.guard_body)
    return [] if starts.guard is None or needs_none else [starts.guard]


def edit(facts: FileFacts, match: list[InsertionPoint]) -> list[Insertion]:
    return enable_at(facts, match)
