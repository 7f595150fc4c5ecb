"""Whether a module has the integration, or uses its name for something of its own."""

from __future__ import annotations

import ast

from flash_integrate.inserted.forms import is_flag
from flash_integrate.inserted.snippets import ENABLE, RUNTIME
from flash_integrate.python.module import Module

# The fields in which nodes hold the names that they read or bind: names, definitions, parameters,
# imports.
_NAMING = ("id", "name", "arg", "asname")


def integrated_at(module: Module) -> int | None:
    """The line that imports the runtime or, where others parse with a parser of this module, that
    of the first flag; None if there is none."""
    imports = [item.line for item in module.imports if item.module.partition(".")[0] == RUNTIME]
    given = [item.line for item in module.statements if is_flag(item.node)]
    return min(imports or given[: len(given) // 2], default=None)


def uses_name(module: Module) -> bool:
    """Whether a module already uses the name of the patch call for something."""
    methods = {id(item) for node in module.of_kind(ast.ClassDef) for item in node.body}
    nodes = (
        node
        for node in module.nodes
        if not isinstance(node, ast.keyword) and id(node) not in methods
    )
    return any(ENABLE in (getattr(node, kind, None) for kind in _NAMING) for node in nodes)
