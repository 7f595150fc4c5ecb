"""Which part of a file a name stands for: a definition, one method of a class, or the file."""

from __future__ import annotations

import ast
from pathlib import PurePosixPath

from flash_integrate.project.names import WHOLE, Defined, Names, Symbols
from flash_integrate.python.module import Module
from flash_integrate.python.syntax import Function, is_static


def node_of(module: Module, name: str) -> ast.Module | ast.stmt:
    """The part of a module that has a name: `WHOLE`, a definition, or a method, `Model.load`."""
    if name == WHOLE:
        return module.tree
    owner, _, method = name.partition(".")
    node = module.definitions[owner]
    body = node.body if method and isinstance(node, ast.ClassDef) else []
    found = [item for item in body if isinstance(item, Function) and item.name == method]
    return found[-1] if found else node


def part_named(names: Names, meaning: Defined) -> tuple[PurePosixPath, str]:
    """The file and the part of it that a definition is, with the name that follows: a method of it,
    a static one that it inherits, or the whole file."""
    symbols = names.symbols(meaning.path)
    definition = symbols.definitions.get(meaning.name) if symbols is not None else None
    method = meaning.rest.partition(".")[0]
    if definition is None:
        return meaning.path, meaning.name
    if definition.is_application or definition.is_router:
        # What these do stands in functions that are decorated with them.
        return meaning.path, WHOLE
    if method in definition.methods:
        return meaning.path, f"{meaning.name}.{method}"
    inherited = _inherited(names, meaning, method) if method else None
    return inherited or (meaning.path, meaning.name)


def _inherited(names: Names, meaning: Defined, method: str) -> tuple[PurePosixPath, str] | None:
    """The static method that a class has of the one that it inherits, or of that one's. Any other
    method is given the class itself, and may use all of it."""
    path, name = meaning.path, meaning.name
    seen = set()
    while (path, name) not in seen:
        seen.add((path, name))
        symbols = names.symbols(path)
        definition = symbols.definitions.get(name) if symbols is not None else None
        if definition is None:
            return None
        if method in definition.attributes:
            return (path, f"{name}.{method}") if method in definition.static else None
        found = names.meaning(path, definition.base) if definition.base is not None else None
        if not isinstance(found, Defined) or found.rest:
            return None
        path, name = found.path, found.name
    return None


def own_method(module: Module, symbols: Symbols, part: str, name: str) -> str | None:
    """What a name in a method stands for that begins with the method's `self` or `cls`: another
    method, or the class as a whole."""
    owner, _, method = part.partition(".")
    if not method:
        return None
    node = node_of(module, part)
    root, _, rest = name.partition(".")
    if not isinstance(node, Function) or root != _receiver(node):
        return None
    attribute = rest.partition(".")[0]
    is_method = attribute in symbols.definitions[owner].methods
    return f"{owner}.{attribute}" if is_method else owner


def _receiver(method: Function) -> str | None:
    """The name that a method has for its object or class: `self`, `cls`; none of a static one."""
    arguments = [*method.args.posonlyargs, *method.args.args]
    return None if is_static(method) or not arguments else arguments[0].arg
