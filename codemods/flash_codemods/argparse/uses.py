"""Whether a namespace is used as a whole, where two more names would show: passed on, printed,
turned into a dict."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile

from flash_integrate.python.syntax import (
    Function,
    assignments,
    dotted,
    is_read,
    method,
    parameters,
    walk,
)

_LOOK_UP = {"getattr", "hasattr", "setattr"}
_PARSING = {
    "parse_args",
    "parse_known_args",
    "parse_intermixed_args",
    "parse_known_intermixed_args",
}
# By these a class takes arguments, or looks them up.
_TAKING = {"add_argument", "_add_action", "_get_option_tuples", *_PARSING} - {"parse_args"}

Functions = Callable[[str], "Called | None"]
"""Gives the function that is called by a dotted name, if it is known."""


@dataclass(frozen=True)
class Called:
    """A function, and those that it calls in its turn."""

    node: Function
    functions: Functions


def is_used_whole(
    name: str,
    nodes: list[ast.AST],
    functions: Functions,
    seen: frozenset[tuple[Function, str]] = frozenset(),
) -> bool:
    """Whether one of `nodes` uses a namespace other than by its attributes. Functions that are
    handed it are looked into."""
    harmless: set[int] = set()
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Subscript):
            # `args.__dict__` and `args._get_kwargs()` are the whole namespace.
            if not getattr(node, "attr", "").startswith("_"):
                harmless.add(id(node.value))
        elif isinstance(node, ast.Call) and dotted(node.func) in _LOOK_UP:
            harmless.update(map(id, node.args[:1]))
        elif isinstance(node, ast.Call):
            harmless.update(_handed_on(node, name, functions, seen))
    return any(is_read(node, name) and id(node) not in harmless for node in nodes)


def _handed_on(
    call: ast.Call, name: str, functions: Functions, seen: frozenset[tuple[Function, str]]
) -> Iterator[int]:
    """The arguments (by `id`) that hand a namespace to a function which uses its attributes
    alone."""
    parts = [*call.args, *(item.value for item in call.keywords)]
    is_handed = any(dotted(value) == name for value in parts)
    called = functions(dotted(call.func) or "") if is_handed else None
    for parameter, value in arguments(call, called.node) if called is not None else ():
        if called is not None and dotted(value) == name:
            key = (called.node, parameter)
            inside = seeing(called.node, parameter)
            if key in seen or not is_used_whole(parameter, inside, called.functions, seen | {key}):
                yield id(value)


def seeing(within: ast.AST, name: str) -> list[ast.AST]:
    """The nodes below `within` that see its `name`: not those of inner functions with a parameter
    of that name."""
    found, todo = [], [within]
    while todo:
        node = todo.pop()
        found.append(node)
        todo += [child for child in ast.iter_child_nodes(node) if name not in parameters(child)]
    return found


def arguments(call: ast.Call, function: Function) -> Iterator[tuple[str, ast.expr]]:
    """The (parameter, value) pairs of a call of a function or method, as far as they can be
    told."""
    names = [item.arg for item in [*function.args.posonlyargs, *function.args.args]]
    if names[:1] == ["self"]:
        names = names[1:]
    certain = takewhile(lambda value: not isinstance(value, ast.Starred), call.args)
    yield from zip(names, certain, strict=False)
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
    if any(_parsed_in(item) for item in methods.values()):
        return False

    def called(name: str) -> Called | None:
        item = methods.get(name.removeprefix("self.")) if name.startswith("self.") else None
        return Called(item, called) if item is not None else None

    return own is None or _hands_through(own, called)


def _parsed_in(function: Function) -> list[ast.Call]:
    """The calls in a method that parse arguments."""
    calls = [part for part in walk(function) if isinstance(part, ast.Call)]
    return [call for call in calls if method(call) in _PARSING]


def _hands_through(override: Function, methods: Functions) -> bool:
    nodes, parsed = walk(override), _parsed_in(override)
    names = [name for node in nodes for name, value in assignments(node) if value in parsed]
    if len(parsed) != 1 or len(names) != 1:
        return False
    returned = [node.value for node in nodes if isinstance(node, ast.Return)]
    others = [node for node in nodes if node not in returned]
    gives_it = all(dotted(value) == names[0] for value in returned)
    return gives_it and not is_used_whole(names[0], others, methods)
