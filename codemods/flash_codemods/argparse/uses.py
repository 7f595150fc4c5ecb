"""Whether a namespace is used as a whole, where two more names would show: passed on, printed,
turned into a dict."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from itertools import takewhile

from flash_integrate.python.syntax import Function, dotted, is_read, method, walk

_READ_ONLY = {"getattr", "hasattr", "setattr", "isinstance", "id"}
_PARSING = {
    "parse_args",
    "parse_known_args",
    "parse_intermixed_args",
    "parse_known_intermixed_args",
}
# By these a class takes arguments, or looks them up.
_TAKING = {"add_argument", "_add_action", "_get_option_tuples", *_PARSING} - {"parse_args"}

Functions = Mapping[str, Function]
"""Functions by the dotted name under which they are called."""


def is_used_whole(
    name: str,
    nodes: list[ast.AST],
    functions: Functions,
    *,
    but: frozenset[int] = frozenset(),
    seen: frozenset[tuple[str, str]] = frozenset(),
) -> bool:
    """Whether one of `nodes` uses a namespace other than by its attributes. Functions that are
    handed it are looked into; `but` are nodes (by `id`) that may use it."""
    harmless = set(but)
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Subscript):
            # `args.__dict__` and `args._get_kwargs()` are the whole namespace.
            if not getattr(node, "attr", "").startswith("_") and dotted(node.value) == name:
                harmless.add(id(node.value))
        elif isinstance(node, ast.Call):
            harmless.update(_harmless_arguments(node, name, functions, seen))
    return any(is_read(node, name) and id(node) not in harmless for node in nodes)


def _harmless_arguments(
    call: ast.Call, name: str, functions: Functions, seen: frozenset[tuple[str, str]]
) -> Iterator[int]:
    called = dotted(call.func) or ""
    if called in _READ_ONLY:
        yield from (id(argument) for argument in call.args[:1] if dotted(argument) == name)
    function = functions.get(called)
    for parameter, value in arguments(call, function) if function is not None else ():
        if function is None or dotted(value) != name:
            continue
        key = (called, parameter)
        deeper = seen | {key}
        nodes = seeing(function, parameter)
        if key in seen or not is_used_whole(parameter, nodes, functions, seen=deeper):
            yield id(value)


def seeing(within: ast.AST, name: str) -> list[ast.AST]:
    """The nodes below `within` that see its `name`: not those of inner functions with a `name` of
    their own."""
    found, todo = [], [within]
    while todo:
        node = todo.pop()
        found.append(node)
        for child in ast.iter_child_nodes(node):
            if not (isinstance(child, Function | ast.Lambda) and _binds(child, name)):
                todo.append(child)
    return found


def _binds(function: Function | ast.Lambda, name: str) -> bool:
    for node in walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name:
            return True
    return any(node.arg == name for node in walk(function.args) if isinstance(node, ast.arg))


def arguments(call: ast.Call, function: Function) -> Iterator[tuple[str, ast.expr]]:
    """The (parameter, value) pairs of a call of a function or method, as far as they can be
    told."""
    parameters = [item.arg for item in [*function.args.posonlyargs, *function.args.args]]
    if parameters[:1] == ["self"]:
        parameters = parameters[1:]
    certain = takewhile(lambda value: not isinstance(value, ast.Starred), call.args)
    yield from zip(parameters, certain, strict=False)
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield keyword.arg, keyword.value


def parses_as_its_base(node: ast.ClassDef) -> bool:
    """Whether a subclass of ArgumentParser takes arguments and gives namespaces as argparse's own:
    a `parse_args` of its own may only look at the attributes of what `super()` gave it, and set
    some, before it returns that."""
    methods = {item.name: item for item in node.body if isinstance(item, Function)}
    if not _TAKING.isdisjoint(methods):
        return False
    own = methods.pop("parse_args", None)
    parses = (part for item in methods.values() for part in walk(item))
    if any(isinstance(part, ast.Call) and method(part) in _PARSING for part in parses):
        return False
    called = {f"self.{name}": item for name, item in methods.items()}
    return own is None or _hands_through(own, called)


def _hands_through(override: Function, methods: Functions) -> bool:
    nodes = walk(override)
    parsed: dict[int, str | None] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            parsed[id(node.value)] = dotted(node.targets[0])
        elif isinstance(node, ast.Return) and node.value is not None:
            parsed.setdefault(id(node.value), None)
    calls = [node for node in nodes if isinstance(node, ast.Call) and method(node) in _PARSING]
    names = {parsed.get(id(call), "") for call in calls}
    returned = [node.value for node in nodes if isinstance(node, ast.Return)]
    gives_it = all(value in calls or dotted(value) in names for value in returned if value)
    but = frozenset(map(id, returned))
    return (
        "" not in names
        and gives_it
        and not any(name and is_used_whole(name, nodes, methods, but=but) for name in names)
    )
