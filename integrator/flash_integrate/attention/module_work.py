"""What a module does when it is run, beside defining things: its `__main__` guard, and work at
module level."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flash_integrate.python.syntax import (
    Function,
    Statement,
    dotted,
    guarded_suite,
    is_main_guard,
    own_nodes,
    walk,
)

if TYPE_CHECKING:
    from flash_integrate.project.file_facts import FileFacts

# Module-level calls that prepare a process rather than do a program's work.
_SETUP_CALLS = re.compile(
    r"(importlib|sys\.path|sys\.stdout|sys\.setrecursionlimit|os\.environ|os\.putenv|os\.chdir|logging|warnings|load_dotenv"
    r"|dotenv|locale|signal|random\.seed|np\.random|numpy\.random|mx\.random|mx\.set_\w+|mx\.metal|multiprocessing|mp"
    r"|nest_asyncio|transformers\.logging|matplotlib|plt\.style|sns|pd\.set_option|torch)(\.|$)"
)


def main_guards(facts: FileFacts) -> list[Statement]:
    """The `if __name__ == "__main__":` of a module, also in a `try`. One with a further condition
    counts where it is alone: of several each may be another way to start."""
    tries = [isinstance(node, ast.Try) for node in facts.tree.body]
    at_top = [item for item in facts.statements if len(item.place) == 1 or _is_in_try(item, tries)]
    guards = [item for item in at_top if is_main_guard(item.node)]
    plain = [
        item
        for item in guards
        if isinstance(item.node, ast.If) and isinstance(item.node.test, ast.Compare)
    ]
    return plain or (guards if len(guards) == 1 else [])


def _is_in_try(statement: Statement, tries: list[bool]) -> bool:
    place = statement.place
    return len(place) == 2 and place[1][0] == "body" and tries[place[0][1]]


def guard_body(guard: Statement | None) -> list[ast.stmt]:
    """The statements that run only where the module is started as a program."""
    suite = guarded_suite(guard.node) if guard is not None else None
    body: list[ast.stmt] = getattr(guard.node, suite) if guard is not None and suite else []
    return body


def does_work(facts: FileFacts, node: ast.stmt) -> bool:
    """Whether a module-level statement does a program's work: a call for its effect, a loop, a
    `with`, or whatever else starts a function of the project."""
    if isinstance(node, ast.For | ast.While | ast.With) or _starts_function(facts, node):
        return True
    value = (
        getattr(node, "value", None)
        if isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign)
        else None
    )
    call = value.value if isinstance(value, ast.Await) else value
    if not isinstance(call, ast.Call):
        return False
    if isinstance(node, ast.Expr):
        return not _prepares(node)
    return dotted(call.func) in facts.model_functions


def holds_guard(node: ast.stmt) -> bool:
    """Whether a module-level statement is a guard, or has one in it."""
    return any(is_main_guard(part) for part in walk(node) if isinstance(part, ast.If))


def _starts_function(facts: FileFacts, node: ast.stmt) -> bool:
    """Whether a statement, or one in its suites, calls a function of the project for what it
    does."""
    is_guard = facts.guard is not None and is_main_guard(node)
    if is_guard or isinstance(node, Function | ast.ClassDef) or _prepares(node):
        return False
    if any(_starts_function(facts, inner) for inner in _inner(node)):
        return True
    names = [
        name
        for part in own_nodes(node)
        if isinstance(part, ast.Call) and (name := dotted(part.func))
    ]
    if isinstance(node, ast.Expr | ast.Raise):
        return any(
            facts.defines(name) or facts.workspace.definition(facts.name, name) for name in names
        )
    # `code = main()`, where `config = defaults()` prepares.
    return isinstance(node, ast.Assign) and any(facts.runs_attention(name) for name in names)


def _inner(node: ast.stmt) -> Iterator[ast.stmt]:
    for name in ("body", "orelse", "finalbody"):
        yield from getattr(node, name, [])
    for handler in getattr(node, "handlers", []):
        yield from handler.body


def _prepares(node: ast.stmt) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and _SETUP_CALLS.match(dotted(call.func) or "") is not None
