"""Where a file parses its arguments, and what becomes of them: the name they get, and whether they
are used as a whole."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property

from flash_codemods.argparse.parsers import DEEPEST, PARSE_METHODS, Parser, Parsers
from flash_codemods.argparse.uses import arguments, is_used_whole, seeing
from flash_integrate.errors import UnreadableSource
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.syntax import (
    Function,
    Scope,
    Statement,
    dotted,
    method,
    own_nodes,
    parameters,
    walk,
)

_MOST_PLACES = 200


@dataclass(frozen=True)
class Namespace:
    """A place where the parsed arguments get a name.

    `target` is that name; `mapping` says that it is a dict (`vars(...)`); `escapes` that it is used
    as a whole; `fixed` that it was parsed from a literal list, so it holds defaults; `leaves_rest`
    that unknown arguments were left to others. `statement` is where it is bound.
    """

    parser: Parser
    statement: Statement
    target: str
    mapping: bool = False
    escapes: bool = False
    fixed: bool = False
    leaves_rest: bool = False

    @property
    def can_be_followed(self) -> bool:
        """Whether a whole line can be inserted where the namespace is to be read."""
        return self.statement.ends_its_line


@dataclass(frozen=True)
class Unsuited:
    """A parse call of a shape that gets no flags."""

    parser: Parser
    reason: str
    line: int


class Namespaces:
    """The parse calls of one file: `found` are those of a known shape."""

    def __init__(self, facts: FileFacts) -> None:
        self.parsers = facts.get(Parsers)
        self.module = facts.module
        self._name, self._workspace = facts.name, facts.workspace
        self._returned: dict[str, tuple[Parser, bool] | None] = {}
        self.functions = {
            node.name: node
            for node in self.module.tree.body
            # What a decorated one does with its arguments is not known.
            if isinstance(node, Function) and not node.decorator_list
        }
        self._may_parse = may_parse(facts)

    @property
    def found(self) -> list[Namespace]:
        """The parse calls of a known shape."""
        return self._calls[0]

    @property
    def unsuited(self) -> list[Unsuited]:
        return self._calls[1]

    @property
    def used(self) -> list[Parser]:
        """The parsers with which the file parses arguments, its own and those of other files."""
        parsers = [*(one.parser for one in self.found), *(one.parser for one in self.unsuited)]
        return list(dict.fromkeys(parsers))

    def returned_by(self, function: str | None, depth: int = DEEPEST) -> tuple[Parser, bool] | None:
        """The parser whose parsed arguments a function returns at once, of this file or imported,
        and whether they come as a dict."""
        if function is None or not depth:
            return None
        if function not in self._returned:
            self._returned[function] = None  # ends a circle
            self._returned[function] = self._returned_by(function, depth - 1)
        return self._returned[function]

    def _returned_by(self, function: str, depth: int) -> tuple[Parser, bool] | None:
        node = self.module.defines(function)
        if node is None:
            found = self._workspace.definition(self._name, function)
            return found[0].get(Namespaces).returned_by(found[1], depth) if found else None
        for statement in self.module.inside(node) if function in self.functions else ():
            returned = statement.node.value if isinstance(statement.node, ast.Return) else None
            for call in calls_in(statement.node) if returned is not None else ():
                expression, mapping = _value_of(statement.node, call)
                parsed = None
                if returned is expression:
                    parsed = self._parsed_by(statement, call, depth)
                if parsed is not None and not _is_pair(expression, call):
                    return parsed[0], parsed[1] or mapping
        return None

    # Not read before it is asked for: what a function returns may be asked by a file that this one
    # imports.
    @cached_property
    def _calls(self) -> tuple[list[Namespace], list[Unsuited]]:
        found: list[Namespace] = []
        unsuited: list[Unsuited] = []
        for statement in self.module.statements if self._may_parse else ():
            for call in calls_in(statement.node):
                parsed = self._parsed_by(statement, call)
                outcome = self._classify(statement, call, *parsed) if parsed is not None else None
                if isinstance(outcome, Namespace):
                    found.append(outcome)
                elif outcome is not None:
                    unsuited.append(outcome)
            if len(found) > _MOST_PLACES:  # each is looked for in the whole file
                raise UnreadableSource(
                    f"parses arguments in more than {_MOST_PLACES} places", statement.line
                )
        return found, unsuited

    def _parsed_by(
        self, statement: Statement, call: ast.Call, depth: int = DEEPEST
    ) -> tuple[Parser, bool] | None:
        """The parser whose namespace `call` returns, and whether it comes as a dict."""
        if method(call) in PARSE_METHODS and isinstance(call.func, ast.Attribute):
            parser = self.parsers.parser_of(call.func.value, statement, depth)
            if parser is not None:
                return parser, False
        return self.returned_by(dotted(call.func), depth)

    def _classify(
        self, at: Statement, call: ast.Call, parser: Parser, mapping: bool
    ) -> Namespace | Unsuited | None:
        """What becomes of the value of a parse call; None where that is nothing, or not said
        here."""
        node = at.node
        expression, made_dict = _value_of(node, call)
        fixed = False
        if method(call) in PARSE_METHODS:
            reason = self._doubt(at, call)
            if reason is not None:
                return Unsuited(parser, reason, at.line)
            fixed = isinstance(_argument(call, 0, "args"), ast.List | ast.Tuple)
        if isinstance(node, ast.Return) and node.value is expression:
            function = at.scope.node
            if isinstance(function, Function) and function.name in self.functions:
                return None  # who calls the function has the namespace
            reason = "a method, or a decorated function, returns the parsed arguments at once"
            return Unsuited(parser, reason, at.line)
        found = self._named(at, expression, call)
        if found is None:
            reason = "the parsed arguments are used in the statement that parses them"
            return Unsuited(parser, reason, at.line)
        name, escapes = found
        is_dict, leaves_rest = mapping or made_dict, _parses_known(call)
        return Namespace(parser, at, name, is_dict, escapes, fixed, leaves_rest)

    def _doubt(self, at: Statement, call: ast.Call) -> str | None:
        """Why a parse call may be another than it seems, or fill something of its own."""
        owner = call.func.value if isinstance(call.func, ast.Attribute) else call.func
        if self.parsers.is_mistakable(owner, at):
            return f"{dotted(owner)} may be one of several parsers here"
        if _argument(call, 1, "namespace") is not None:
            return "parses into an object of its own"
        given = _argument(call, 0, "args")
        is_literal = isinstance(given, ast.List | ast.Tuple)
        if given is None or is_literal or self._is_command_line(given, at.scope):
            return None
        return "parses text that is not its command line"

    def _is_command_line(
        self, value: ast.expr, scope: Scope, seen: frozenset[str] = frozenset()
    ) -> bool:
        """Whether a list is made of `sys.argv`, or of a parameter that stands for it."""
        for node in walk(value):
            name = dotted(node) if isinstance(node, ast.Name | ast.Attribute) else None
            if name is not None and self.module.qualified(name) == "sys.argv":
                return True
        value = value.args[0] if isinstance(value, ast.Call) and value.args else value
        at: Scope | None = scope if isinstance(value, ast.Name) else None
        while at is not None:
            if dotted(value) in parameters(at.node):
                return self._is_given_command_line(at, value.id, seen)  # type: ignore[attr-defined]
            at = at.parent
        return False

    def _is_given_command_line(self, scope: Scope, name: str, seen: frozenset[str]) -> bool:
        """Whether no call of a function in this file gives a parameter anything else, as where the
        rest of the command line is left to one of several commands."""
        function = scope.node
        if not isinstance(function, Function) or self.functions.get(function.name) is not function:
            return True
        key = f"{function.name}({name})"
        if key in seen:
            return True
        for statement in self.module.statements:
            for call in calls_in(statement.node):
                given = (
                    dict(arguments(call, function)) if dotted(call.func) == function.name else {}
                )
                value = given.get(name)
                if value is not None and not self._is_command_line(
                    value, statement.scope, seen | {key}
                ):
                    return False
        return True

    def _named(
        self, at: Statement, expression: ast.expr, call: ast.Call
    ) -> tuple[str, bool] | None:
        """The name that the statement gives the namespace, and whether it is used as a whole."""
        node = at.node
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is not expression:
            return None
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if _is_pair(expression, call):
            if not isinstance(target, ast.Tuple | ast.List):
                return None
            target = target.elts[0]
        name = dotted(target)
        if name is None:
            return None
        # An attribute can be reached from anywhere, and so can what has two names.
        shared = "." in name or (isinstance(node, ast.Assign) and len(node.targets) > 1)
        return name, shared or self._escapes(name, at.scope.node)

    def _escapes(self, name: str, within: ast.AST) -> bool:
        """Whether a namespace is ever used as a whole, or may be, being a global of functions."""
        shared = [node.names for node in self.module.of_kind(ast.Global)]
        shared += [node.names for node in self.module.of_kind(ast.Nonlocal)]
        is_shared = any(name in names for names in shared)
        return is_shared or is_used_whole(name, seeing(within, name), self.functions)


def may_parse(facts: FileFacts) -> bool:
    """Whether a file parses arguments, by its words or by those of the files that it imports."""
    data = facts.source.data
    return b"argparse" in data or facts.workspace.project.imports_shared(facts.name)


def calls_in(node: ast.stmt) -> list[ast.Call]:
    """The calls of a statement, without those of the statements nested in it."""
    return [part for part in own_nodes(node) if isinstance(part, ast.Call)]


def _value_of(node: ast.stmt, call: ast.Call) -> tuple[ast.expr, bool]:
    """The whole expression that is the namespace, and whether it is a dict: `vars(...)` of it."""
    for outer in calls_in(node):
        if dotted(outer.func) == "vars" and outer.args == [call]:
            return outer, True
    return call, False


def _parses_known(call: ast.Call) -> bool:
    return method(call) == "parse_known_args"


def _is_pair(expression: ast.expr, call: ast.Call) -> bool:
    """Whether it is the namespace and what is left of the command line."""
    return expression is call and _parses_known(call)


def _argument(call: ast.Call, index: int, name: str) -> ast.expr | None:
    """An argument of a call that may be given by its place or its name."""
    by_name = next((item.value for item in call.keywords if item.arg == name), None)
    return call.args[index] if len(call.args) > index else by_name
