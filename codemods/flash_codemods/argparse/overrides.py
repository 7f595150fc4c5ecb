"""Whether a subclass of `ArgumentParser` takes arguments and gives namespaces as argparse's own
class does."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from flash_codemods.argparse.inputs import PARSE_METHODS
from flash_codemods.argparse.options import READ_ONLY_BUILTINS, assignments, method
from flash_integrate.python.syntax import Function, dotted, walk

_ADDING_METHODS = {"add_argument", "_add_action", "_get_option_tuples"}

Methods = Mapping[str, Function]


def behaves_as_its_base(methods: Methods) -> bool:
    """Whether the class has no method of its own that adds an argument, or that does more with
    what it parses than read its attributes and return it."""
    overrides = [body for name, body in methods.items() if name in PARSE_METHODS]
    others = [body for name, body in methods.items() if name not in PARSE_METHODS]
    return (
        methods.keys().isdisjoint(_ADDING_METHODS)
        and not any(call for body in others for call in _parse_calls(body))
        and all(_hands_through(body, methods) for body in overrides)
    )


def _parse_calls(body: Function) -> Iterator[ast.Call]:
    return (
        node for node in walk(body) if isinstance(node, ast.Call) and method(node) in PARSE_METHODS
    )


def _hands_through(override: Function, methods: Methods) -> bool:
    """Whether a parse method returns what `super()` gave it, and reads but its attributes
    before."""
    nodes = walk(override)
    parsing = set(map(id, _parse_calls(override)))
    assigned = [(name, value) for node in nodes for name, value in assignments(node)]
    parsed = {name for name, value in assigned if id(value) in parsing}
    returned = [node.value for node in nodes if isinstance(node, ast.Return)]
    placed = {*map(id, returned), *(id(value) for _, value in assigned)}
    return (
        parsing <= placed
        and all(id(value) in parsing or dotted(value) in parsed for value in returned)
        and all(
            id(node) in placed for name in parsed for node in _whole_uses(override, name, methods)
        )
    )


def _whole_uses(function: Function, name: str, methods: Methods, depth: int = 3) -> list[ast.expr]:
    """Where a function uses a namespace not by its attributes. Methods that it hands it to are
    looked through."""
    nodes = walk(function)
    harmless = {
        id(node.value)
        for node in nodes
        if isinstance(node, ast.Attribute) and not node.attr.startswith("_")
    }
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        if dotted(call.func) in READ_ONLY_BUILTINS:
            harmless |= set(map(id, call.args[:1]))
        owner, _, called = (dotted(call.func) or "").rpartition(".")
        if depth and owner == "self" and called in methods:
            pairs = zip(_parameters(methods[called]), call.args, strict=False)
            given = [(parameter, value) for parameter, value in pairs if dotted(value) == name]
            harmless |= {
                id(value)
                for into, value in given
                if not _whole_uses(methods[called], into, methods, depth - 1)
            }
    reads = (
        node for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    )
    return [node for node in reads if node.id == name and id(node) not in harmless]


def _parameters(body: Function) -> list[str]:
    """The parameters that a call on an object fills by their places."""
    names = [item.arg for item in [*body.args.posonlyargs, *body.args.args]]
    is_static = any(dotted(decorator) == "staticmethod" for decorator in body.decorator_list)
    return names if is_static else names[1:]
