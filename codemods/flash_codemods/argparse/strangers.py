"""Whether a module adds arguments to something that may be any parser, under a name that says
nothing."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable

from flash_codemods.argparse.options import GROUP_METHODS, assignments, method
from flash_integrate.python.syntax import Scope, Statement, dotted, own_nodes, parameters


def adds_to_strangers(found: Iterable[Statement], parsers: set[str]) -> bool:
    """Whether there is an `add_argument` on something else than one of the names `parsers`, a
    group, the parser of a subcommand, or a parameter."""
    names = _Names(parsers)
    direct: set[int] = set()
    adders: list[tuple[ast.Attribute, Scope]] = []
    for statement in found:
        names.learn(statement)
        direct.update(id(value) for _, value in assignments(statement.node))
        for node in own_nodes(statement.node):
            if isinstance(node, ast.Call):
                direct.add(id(node.func))
            if isinstance(node, ast.Attribute) and node.attr == "add_argument":
                adders.append((node, statement.scope))
    return any(
        id(node) not in direct
        or not (_makes_adder(node.value) or names.know(dotted(node.value), scope))
        for node, scope in adders
    )


class _Names:
    """The names of each scope that stand for nothing but parsers and groups; an attribute's is the
    module's."""

    def __init__(self, parsers: set[str]) -> None:
        self._parsers = parsers
        self._known: Counter[tuple[int, str]] = Counter()
        self._stored: Counter[tuple[int, str]] = Counter()

    def learn(self, statement: Statement) -> None:
        for name, value in assignments(statement.node):
            if _makes_adder(value) or (name in self._parsers and isinstance(value, ast.Call)):
                self._known[_key(name, statement.scope)] += 1
        for node in own_nodes(statement.node):
            if (
                isinstance(getattr(node, "ctx", None), ast.Store)
                and (stored := dotted(node)) is not None
            ):
                self._stored[_key(stored, statement.scope)] += 1

    def know(self, name: str | None, scope: Scope | None) -> bool:
        while name is not None and scope is not None:
            key = _key(name, scope)
            if self._stored[key]:
                return self._known[key] == self._stored[key]
            if name in parameters(scope.node):
                return True
            scope = scope.parent
        return False


def _key(name: str, scope: Scope) -> tuple[int, str]:
    return (0 if "." in name else id(scope.node)), name


def _makes_adder(node: ast.expr) -> bool:
    """Whether an expression is a new group, or the new parser of a subcommand."""
    return isinstance(node, ast.Call) and method(node) in {*GROUP_METHODS, "add_parser"}
