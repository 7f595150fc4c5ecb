"""Commands of click and typer. The call is the first statement of the group, or of each command without one.

Inserts: the import and the call, without flags: a decorator's option would need a parameter in the function's own
line, so `MLX_FLASH_DISABLE` and `MLX_FLASH_BLOCK_SIZE` do what flags would.

Refuses: commands whose body shares its line with the `def`.
"""

from __future__ import annotations

import ast

from flash_codemods._runtime_import import call_before
from flash_integrate.codemod import Insertion, Refusal
from flash_integrate.facts.file_facts import FileFacts
from flash_integrate.syntax import Function, Place, Statement, dotted

ORDER = 15
SUMMARY = "click and typer commands: the call as first statement of the group or the command"
REVIEW = "the environment variables are enough: the command gets no options of its own"


def match(facts: FileFacts) -> list[Place] | Refusal | None:
    if not facts.imported_packages & {"click", "typer"}:
        return None
    groups = [item for item in facts.module_level if _decorated(item, ("group", "callback"))]
    commands = groups or [item for item in facts.module_level if _decorated(item, ("command",))]
    if not commands:
        return None
    places = [facts.first_line_of(command) for command in commands]
    if None in places:
        return Refusal("the command's body shares its line with the def", commands[places.index(None)].line)
    return [place for place in places if place is not None]


def edit(facts: FileFacts, match: list[Place]) -> list[Insertion]:
    return call_before(facts, match)


def _decorated(statement: Statement, names: tuple[str, ...]) -> bool:
    """Whether a function carries `@click.command`, `@app.command()` or the like."""
    if not isinstance(statement.node, Function):
        return False
    decorators = [item.func if isinstance(item, ast.Call) else item for item in statement.node.decorator_list]
    return any((dotted(item) or "").rpartition(".")[2] in names for item in decorators)
