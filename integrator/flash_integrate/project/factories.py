"""Applications by the names that a file gives them: made there, or by a function of the project."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from flash_integrate.project.applications import makes_application
from flash_integrate.project.names import Defined
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.syntax import assignments, dotted


def application_names(facts: FileFacts) -> Iterator[tuple[str, int]]:
    """The names that a file gives applications, `app = FastAPI()` and `app = create_app()`, with
    their lines."""
    for node in facts.tree.body:
        for name, value in assignments(node):
            if makes_application(facts.module, node) or _is_made_by_factory(facts, value):
                yield name, node.lineno


def _is_made_by_factory(facts: FileFacts, value: ast.expr) -> bool:
    """Whether an expression calls a function, of this file or another, that makes an
    application."""
    name = dotted(value.func) if isinstance(value, ast.Call) else None
    found = facts.workspace.names.meaning(facts.name, name) if name is not None else None
    symbols = facts.workspace.names.symbols(found.path) if isinstance(found, Defined) else None
    if symbols is None or not isinstance(found, Defined) or found.rest:
        return False
    definition = symbols.definitions.get(found.name)
    return definition is not None and definition.is_factory
