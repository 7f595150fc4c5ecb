"""Where the command line comes from that a parse call reads: the user, the program's own text, or
a literal list."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from enum import Enum, auto
from itertools import takewhile

from flash_codemods.argparse.options import method
from flash_integrate.python.syntax import (
    Function,
    Scope,
    Statement,
    dotted,
    own_nodes,
    parameters,
    walk,
)

PARSE_METHODS = {
    "parse_args",
    "parse_known_args",
    "parse_intermixed_args",
    "parse_known_intermixed_args",
}


class Input(Enum):
    """What a parse call reads: `FIXED` is a literal list, `OTHER` what a program reads itself, as
    a prompt does."""

    USERS = auto()
    FIXED = auto()
    OTHER = auto()


class Inputs:
    """Answers for the parse calls of a module, `found` being its statements and `functions` those
    at its top level."""

    def __init__(
        self, tree: ast.Module, found: list[Statement], functions: dict[str, Function]
    ) -> None:
        self._functions = functions
        self._argv = {"sys.argv", *names_from("sys", "argv", walk(tree))}
        self._calls: dict[str | None, list[tuple[ast.Call, Scope]]] = {}
        self._known: dict[tuple[int, str], bool] = {}
        self._assigned: dict[tuple[int, str], list[ast.expr]] = {}
        for statement in found:
            for call in (node for node in own_nodes(statement.node) if isinstance(node, ast.Call)):
                self._calls.setdefault(dotted(call.func), []).append((call, statement.scope))
            for name, value in _bindings(statement.node):
                self._assigned.setdefault((id(statement.scope.node), name), []).append(value)

    def of(self, call: ast.Call, scope: Scope) -> Input:
        """What the parse call reads, which stands in `scope`."""
        read = argument(call, 0, "args")
        if read is None or self._is_users(read, scope):
            return Input.USERS
        return Input.FIXED if isinstance(read, ast.List | ast.Tuple) else Input.OTHER

    def _is_users(self, value: ast.expr, scope: Scope) -> bool:
        """Whether a list is the program's own command line, or made of it."""
        if isinstance(value, ast.Constant):
            return value.value is None
        if dotted(value) in self._argv or (
            isinstance(value, ast.Call) and method(value) in PARSE_METHODS
        ):
            return True
        if isinstance(value, ast.Name):
            return self._names_users(value.id, scope)
        return any(self._is_users(part, scope) for part in _parts(value))

    def _names_users(self, name: str, scope: Scope | None) -> bool:
        while scope is not None and not self._binds(scope, name):
            scope = scope.parent
        if scope is None:
            return False
        key = (id(scope.node), name)
        if key not in self._known:
            self._known[key] = False  # ends circles
            is_given = name in parameters(scope.node) and self._is_handed_users(scope.node, name)
            values = self._assigned.get(key, [])
            self._known[key] = is_given or any(self._is_users(value, scope) for value in values)
        return self._known[key]

    def _binds(self, scope: Scope, name: str) -> bool:
        return (id(scope.node), name) in self._assigned or name in parameters(scope.node)

    def _is_handed_users(self, function: ast.AST, parameter: str) -> bool:
        """Whether no call of this module gives a function other text for its command line."""
        if not isinstance(function, Function) or self._functions.get(function.name) is not function:
            return True
        calls = self._calls.get(function.name, [])
        pairs = (
            (name, value, scope)
            for call, scope in calls
            for name, value in arguments(call, function)
        )
        given = ((value, scope) for name, value, scope in pairs if name == parameter)
        return all(
            isinstance(value, ast.List | ast.Tuple) or self._is_users(value, at)
            for value, at in given
        )


def argument(call: ast.Call, index: int, name: str) -> ast.expr | None:
    """An argument of a call that may be given by its place or its name."""
    by_name = next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
    return call.args[index] if len(call.args) > index else by_name


def arguments(call: ast.Call, function: Function) -> Iterator[tuple[str, ast.expr]]:
    """The (parameter, value) pairs of a call of a module-level function, as far as they can be
    told."""
    parameters = [*function.args.posonlyargs, *function.args.args]
    certain = takewhile(lambda value: not isinstance(value, ast.Starred), call.args)
    yield from (
        (parameter.arg, value) for parameter, value in zip(parameters, certain, strict=False)
    )
    yield from (
        (keyword.arg, keyword.value) for keyword in call.keywords if keyword.arg is not None
    )


def names_from(module: str, name: str, nodes: list[ast.AST]) -> set[str]:
    """The names that `from module import name` binds."""
    imports = (node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == module)
    return {
        alias.asname or alias.name for node in imports for alias in node.names if alias.name == name
    }


def _bindings(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """The names that an assignment binds, those of `a, *b = ...` too, and what they or their list
    are made of."""
    targets = (
        node.targets
        if isinstance(node, ast.Assign)
        else [node.target]
        if isinstance(node, ast.AnnAssign)
        else []
    )
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    for name in (part for target in targets for part in walk(target)):
        if isinstance(name, ast.Name) and value is not None:
            yield name.id, value


def _parts(value: ast.expr) -> list[ast.expr]:
    """The lists of which an expression makes one: some of it, or all, or one of two."""
    if isinstance(value, ast.Subscript | ast.Starred):
        return [value.value]
    if isinstance(value, ast.IfExp):
        return [value.body, value.orelse]
    if isinstance(value, ast.BoolOp):
        return value.values
    if isinstance(value, ast.BinOp):
        return [value.left, value.right]
    if isinstance(value, ast.ListComp):
        return [value.generators[0].iter]
    if isinstance(value, ast.List | ast.Tuple):
        return [item for item in value.elts if isinstance(item, ast.Starred)]
    return value.args if isinstance(value, ast.Call) and dotted(value.func) == "list" else []
