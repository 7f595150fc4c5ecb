"""Where a file parses its arguments, and what becomes of them: the name they get, and whether they
are used as a whole."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from flash_codemods.argparse.parsers import PARSE_METHODS, Parser, Parsers
from flash_codemods.argparse.uses import Called, arguments, is_used_whole, seeing
from flash_integrate.notes import Refusal
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
_COPIES = {"list", "tuple"}


@dataclass(frozen=True)
class Namespace:
    """A place where the arguments that `parser` parses get a name.

    `target` is that name; `mapping` says that it is a dict (`vars(...)`); `escapes` that it is used
    as a whole; `fixed` that it was parsed from a literal list, so it holds defaults; `leaves_rest`
    that unknown arguments were kept for others. `statement` is where it is bound.
    """

    parser: Parser
    statement: Statement
    target: str
    mapping: bool
    escapes: bool
    fixed: bool
    leaves_rest: bool


class Namespaces:
    """The parse calls of one file."""

    def __init__(self, facts: FileFacts) -> None:
        self._parsers = facts.get(Parsers)
        self._module = facts.module
        self._name, self._workspace = facts.name, facts.workspace

    @property
    def parsers(self) -> list[Parser]:
        """The parsers with which the file parses arguments, its own and those of other files."""
        found = [parser for _, _, parsers in self._parsing for parser in parsers]
        return list(dict.fromkeys(parser for parser in found if parser is not None))

    @cached_property
    def found(self) -> list[Namespace] | Refusal:
        """The places at which parsed arguments get a name, or why those of one can't be
        followed."""
        found: list[Namespace] = []
        for at, call, parsers in self._parsing:
            parser, *others = dict.fromkeys(parsers)
            if parser is None or others:
                return Refusal("what parses its arguments may be one of several parsers", at.line)
            if len(self._parsing) > _MOST_PLACES:  # each is looked for in the whole file
                return Refusal(f"parses arguments in more than {_MOST_PLACES} places", at.line)
            place = self._doubt(at, call) or self._place(at, call, parser)
            if isinstance(place, str):
                return Refusal(place, at.line)
            if place is not None:
                found.append(place)
        return found

    @cached_property
    def _parsing(self) -> list[tuple[Statement, ast.Call, list[Parser | None]]]:
        """The calls that give parsed arguments, and what each may be parsed by: enough of them to
        know that there are too many."""
        found = ((at, call, self._parsers_of(at, call)) for at, call in self._calls)
        return list(islice((item for item in found if any(item[2])), _MOST_PLACES + 1))

    def _parsers_of(self, at: Statement, call: ast.Call) -> list[Parser | None]:
        """The parsers whose arguments a call may give; None among them for what is not known."""
        parsers: list[Parser | None] = []
        if isinstance(call.func, ast.Attribute) and call.func.attr in PARSE_METHODS:
            parsers = self._parsers.meant_by(call.func.value, at)
        return parsers if any(parsers) else self._handed_back_by(dotted(call.func) or "")

    def _handed_back_by(self, function: str) -> list[Parser | None]:
        """The parsers whose arguments a function returns at once, of this file or imported."""
        if self._module.defines(function) is not None:
            return self._handing_back.get(function, [])
        there = self._workspace.definition(self._name, function)
        return there[0].get(Namespaces)._handing_back.get(there[1], []) if there else []

    @cached_property
    def _calls(self) -> list[tuple[Statement, ast.Call]]:
        return [(at, call) for at in self._module.statements for call in calls_in(at.node)]

    @cached_property
    def _functions(self) -> dict[str, Function]:
        """The functions at module level. What a decorated one does with its arguments is not
        known."""
        functions = [node for node in self._module.tree.body if isinstance(node, Function)]
        return {node.name: node for node in functions if not node.decorator_list}

    @cached_property
    def _handing_back(self) -> dict[str, list[Parser | None]]:
        """The functions that return parsed arguments at once, and the parsers of those."""
        return {
            at.scope.node.name: self._parsers_of(at, call)
            for at, call in self._calls
            if isinstance(at.scope.node, Function) and self._is_handed_back(at, call)
        }

    def _is_handed_back(self, at: Statement, call: ast.Call) -> bool:
        """Whether a function returns the arguments that it parses at once, to whoever calls it."""
        function = at.scope.node
        return (
            method(call) == "parse_args"
            and not _is_fixed(call)
            and isinstance(at.node, ast.Return)
            and at.node.value is call
            and isinstance(function, Function)
            and self._functions.get(function.name) is function
        )

    def _doubt(self, at: Statement, call: ast.Call) -> str | None:
        """Why a parse call may fill something of its own, or read something else than the command
        line."""
        if method(call) not in PARSE_METHODS:
            return None
        if _argument(call, 1, "namespace") is not None:
            return "parses into an object of its own"
        given = _argument(call, 0, "args")
        if given is None or _is_fixed(call) or self._is_command_line(given, at.scope):
            return None
        return "parses text that is not its command line"

    def _place(self, at: Statement, call: ast.Call, parser: Parser) -> Namespace | str | None:
        """The place where the arguments of a parse call get their name, or why they get none; None
        where whoever calls the function has them."""
        if self._is_handed_back(at, call):
            return None
        value = _dict_of(at.node, call) or call
        target, rest = _target(at.node, value), None
        if method(call) == "parse_known_args":
            target, rest = _pair(target)
        if not isinstance(target, ast.Name):
            return "the parsed arguments do not get a plain name, as in args = parser.parse_args()"
        if not at.ends_its_line:
            return "its parse call shares its line with another statement"
        mapping, escapes = value is not call, self._escapes(target.id, at.scope.node)
        leaves_rest = isinstance(rest, ast.Name) and not rest.id.startswith("_")
        return Namespace(parser, at, target.id, mapping, escapes, _is_fixed(call), leaves_rest)

    def _is_command_line(
        self, value: ast.expr, scope: Scope, seen: frozenset[ast.AST] = frozenset()
    ) -> bool:
        """Whether a list is made of `sys.argv`, or None, which stands for it, or a parameter to
        which no call in this file gives anything else, as where one of several commands gets the
        rest of the command line; or made of such, `list(argv) if argv is not None else None`."""
        if any(self._module.qualified(dotted(node)) == "sys.argv" for node in walk(value)):
            return True
        if (parts := _made_of(value)) is not None:
            return all(self._is_command_line(part, scope, seen) for part in parts)
        name, function = dotted(value), scope.node
        if name is None:
            return False
        if isinstance(function, Function) and name in parameters(function):
            return function in seen or self._is_given_it_alone(function, name, seen | {function})
        given = self._module.assigned(name, scope)
        return bool(given) and all(
            item in seen or self._is_command_line(item, at.scope, seen | {item})
            for at, item in given
        )

    def _is_given_it_alone(
        self, function: Function, parameter: str, seen: frozenset[ast.AST]
    ) -> bool:
        """Whether all calls of a function in this file give a parameter the command line."""
        calls = [item for item in self._calls if dotted(item[1].func) == function.name]
        return all(
            self._is_command_line(given, at.scope, seen)
            for at, call in calls
            for name, given in arguments(call, function)
            if name == parameter
        )

    def _escapes(self, name: str, within: ast.AST) -> bool:
        """Whether a namespace is ever used as a whole, or may be, being a global of functions."""
        shared = [node.names for node in self._module.of_kind(ast.Global)]
        shared += [node.names for node in self._module.of_kind(ast.Nonlocal)]
        is_shared = any(name in names for names in shared)
        return is_shared or is_used_whole(name, seeing(within, name), self._called)

    def _called(self, name: str) -> Called | None:
        """The function of this file, or of another one of the project, that a name stands for."""
        own = self._functions.get(name)
        if own is not None:
            return Called(own, self._called)
        found = self._workspace.definition(self._name, name)
        return found[0].get(Namespaces)._called(found[1]) if found is not None else None


def may_parse(facts: FileFacts) -> bool:
    """Whether a file parses arguments, by its words."""
    return any(word.encode() in facts.source.data for word in PARSE_METHODS)


def calls_in(node: ast.stmt) -> list[ast.Call]:
    """The calls of a statement, without those of the statements nested in it."""
    return [part for part in own_nodes(node) if isinstance(part, ast.Call)]


def _dict_of(node: ast.stmt, call: ast.Call) -> ast.Call | None:
    """`vars(...)` of a call in a statement."""
    calls = (outer for outer in calls_in(node) if dotted(outer.func) == "vars")
    return next((outer for outer in calls if outer.args == [call]), None)


def _target(node: ast.stmt, value: ast.expr) -> ast.expr | None:
    """What an assignment gives a value to, if to nothing else."""
    if isinstance(node, ast.Assign) and node.value is value and len(node.targets) == 1:
        return node.targets[0]
    return None


def _pair(target: ast.expr | None) -> tuple[ast.expr | None, ast.expr | None]:
    if isinstance(target, ast.Tuple) and len(target.elts) == 2:
        return target.elts[0], target.elts[1]
    return None, None


def _made_of(value: ast.expr) -> list[ast.expr] | None:
    """The lists of which one is this value, or a copy or a slice of it: none of None, which has
    argparse read the command line. None for other values."""
    if isinstance(value, ast.Constant) and value.value is None:
        return []
    if isinstance(value, ast.IfExp):
        return [value.body, value.orelse]
    if isinstance(value, ast.BoolOp):
        return value.values
    if isinstance(value, ast.Call) and dotted(value.func) in _COPIES and len(value.args) == 1:
        return value.args
    if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Slice):
        return [value.value]
    return None


def _is_fixed(call: ast.Call) -> bool:
    """Whether a parse call is given a literal list."""
    given = _argument(call, 0, "args") if method(call) in PARSE_METHODS else None
    return isinstance(given, ast.List | ast.Tuple)


def _argument(call: ast.Call, index: int, name: str) -> ast.expr | None:
    """An argument of a call that may be given by its place or its name."""
    by_name = next((item.value for item in call.keywords if item.arg == name), None)
    return call.args[index] if len(call.args) > index else by_name
