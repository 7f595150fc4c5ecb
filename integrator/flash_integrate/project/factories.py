"""Applications by the names that a file gives them: made there, or by a function of the project."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from flash_integrate.project.applications import is_factory, makes_application
from flash_integrate.project.kinds import is_test
from flash_integrate.project.names import Defined
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.syntax import Function, assignments, dotted


def application_names(facts: FileFacts) -> Iterator[tuple[str, int]]:
    """The names that a file gives applications, `app = FastAPI()` and `app = create_app()`, with
    their lines."""
    for node in facts.tree.body:
        for name, value in assignments(node):
            if makes_application(facts.module, node) or _is_made_by_factory(facts, value):
                yield name, node.lineno


def uncalled_factories(facts: FileFacts) -> Iterator[str]:
    """The functions of a file that make an application, and that nothing of the project takes,
    tests aside: a runner calls them, `uvicorn --factory svc:create_app`, without arguments."""
    read = {node.id for node in facts.module.of_kind(ast.Name)}
    for item in facts.module_level:
        node = item.node
        if not isinstance(node, Function) or not is_factory(facts.module, node):
            continue
        users = facts.workspace.project.importers_of(facts.name, node.name)
        is_taken = node.name in read or not all(map(is_test, users))
        if not is_taken and not _needs_arguments(node.args) and _gives_back(facts, node):
            yield node.name


def _needs_arguments(arguments: ast.arguments) -> bool:
    positional = [*arguments.posonlyargs, *arguments.args]
    return len(positional) > len(arguments.defaults) or None in arguments.kw_defaults


def _gives_back(facts: FileFacts, function: Function) -> bool:
    """Whether a function returns something that is no plain value, as an exit status is."""
    returns = [item.node for item in facts.module.inside(function)]
    given = [node.value for node in returns if isinstance(node, ast.Return)]
    return any(not isinstance(value, ast.Constant | None) for value in given)


def _is_made_by_factory(facts: FileFacts, value: ast.expr) -> bool:
    """Whether an expression calls a function, of this file or another, that makes an
    application."""
    name = dotted(value.func) if isinstance(value, ast.Call) else None
    found = facts.workspace.names.meaning(facts.name, name) if name is not None else None
    if not isinstance(found, Defined) or found.rest:
        return False
    module = facts.workspace.module(found.path)
    definition = module.definitions.get(found.name)
    return definition is not None and is_factory(module, definition)
