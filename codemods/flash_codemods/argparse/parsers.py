"""The `ArgumentParser`s of a file: where they are made, where their arguments end, and which
expressions stand for them."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from flash_codemods.argparse.uses import parses_as_its_base
from flash_integrate.errors import UnreadableSource
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.syntax import (
    Scope,
    Statement,
    Steps,
    assignments,
    dotted,
    method,
    walk,
)

PARSE_METHODS = {"parse_args", "parse_known_args"}
_GROUPS = {"add_argument_group", "add_mutually_exclusive_group"}
_MOST_PARSERS = 50
DEEPEST = 5
"""A function may return what another returned, and a class inherit from another: longer chains are
not written."""


ParserKey = tuple[PurePosixPath, Steps, str]
"""What tells a parser from others, without the syntax tree that a `Parser` holds."""


@dataclass(frozen=True)
class ParserClass:
    """`ArgumentParser` or a subclass of it; `is_plain`: one that takes arguments and gives
    namespaces as argparse's own does. `homes` are the files of the subclasses."""

    is_plain: bool = True
    homes: tuple[PurePosixPath, ...] = ()


@dataclass(frozen=True)
class Parser:
    """A parser, told from others by the file and the statement that make it, and its name there.
    The flags go after `last_argument`."""

    home: PurePosixPath
    steps: Steps
    name: str
    created: Statement = field(compare=False, repr=False)
    call: ast.Call = field(compare=False, repr=False)
    kind: ParserClass = field(compare=False)
    last_argument: Statement = field(compare=False, repr=False)

    @property
    def key(self) -> ParserKey:
        return self.home, self.steps, self.name

    def keyword(self, name: str) -> ast.expr | None:
        """The value that it is made with for a parameter, if it is given."""
        return next((item.value for item in self.call.keywords if item.arg == name), None)


class Parsers:
    """The parsers of one file. What other files define is asked of them by its name, so that files
    may import each other."""

    def __init__(self, facts: FileFacts) -> None:
        self.home = facts.name
        self.module = facts.module
        self._workspace = facts.workspace
        self._classes: dict[str, ParserClass | None] = {}
        self._factories: dict[str, Parser | None] = {}
        self._made: dict[tuple[Steps, str], Parser | None] = {}

    @cached_property
    def made(self) -> list[Parser]:
        """The parsers that the file makes and names.

        Raises:
            UnreadableSource: there are too many.
        """
        found = []
        for statement in self.module.statements:
            for name, value in assignments(statement.node):
                if (parser := self._made_by(statement, name, value)) is not None:
                    found.append(parser)
        if len(found) > _MOST_PARSERS:  # each is looked for in the whole file
            raise UnreadableSource(
                f"builds more than {_MOST_PARSERS} parsers", found[-1].created.line
            )
        return found

    def parser_of(
        self, expression: ast.expr | None, at: Statement, depth: int = DEEPEST
    ) -> Parser | None:
        """The parser that an expression in the statement `at` stands for: a name, an attribute, or
        a call of a function that returns one. Of several that have the name, the last one
        before."""
        if isinstance(expression, ast.Call):
            return self.returned_by(dotted(expression.func), depth)
        bound = self._bound_to(dotted(expression), at.scope, depth)
        if not bound:
            return None
        return max(bound, key=lambda pair: (pair[0].line <= at.line, pair[0].line))[1]

    def is_mistakable(self, expression: ast.expr, at: Statement, depth: int = DEEPEST) -> bool:
        """Whether the expression may also stand for another parser than `parser_of` says."""
        parser = self.parser_of(expression, at, depth)
        bound = self._bound_to(dotted(expression), at.scope, depth)
        own = next((statement for statement, other in bound if other == parser), at)
        others = [statement for statement, other in bound if other != parser]
        between = any(own.line < other.line <= at.line for other in others)
        return bool(others) and (between or own.scope is not at.scope or not own.precedes(at))

    def returned_by(self, function: str | None, depth: int = DEEPEST) -> Parser | None:
        """The parser that a function returns, of this file or imported."""
        if function is None or not depth:
            return None
        if function not in self._factories:
            self._factories[function] = None  # ends a circle
            self._factories[function] = self._returned_by(function, depth - 1)
        return self._factories[function]

    def _returned_by(self, function: str, depth: int) -> Parser | None:
        node = self.module.defines(function)
        if node is None:
            there = self._elsewhere(function)
            return there[0].returned_by(there[1], depth) if there else None
        for statement in self.module.inside(node):
            value = statement.node.value if isinstance(statement.node, ast.Return) else None
            parser = self.parser_of(value, statement, depth)
            if (
                value is not None
                and parser is not None
                and not self.is_mistakable(value, statement, depth)
            ):
                return parser
        return None

    def _kind(self, name: str | None, depth: int = DEEPEST) -> ParserClass | None:
        """`ArgumentParser` or a subclass of it, of this file or imported, by its name."""
        if name is None or not depth or not name.rpartition(".")[2].lstrip("_")[:1].isupper():
            return None
        if name not in self._classes:
            self._classes[name] = None  # ends a circle
            self._classes[name] = self._find_kind(name, depth - 1)
        return self._classes[name]

    def _find_kind(self, name: str, depth: int) -> ParserClass | None:
        if self.module.qualified(name) == "argparse.ArgumentParser":
            return ParserClass()
        node = self.module.defines(name)
        if isinstance(node, ast.ClassDef):
            kinds = [self._kind(dotted(base), depth) for base in node.bases]
            base = next((kind for kind in kinds if kind is not None), None)
            if base is None:
                return None
            is_plain = base.is_plain and len(kinds) == 1 and parses_as_its_base(node)
            return ParserClass(is_plain, (self.home, *base.homes))
        there = self._elsewhere(name) if node is None else None
        return there[0]._kind(there[1], depth) if there else None

    def _elsewhere(self, name: str) -> tuple[Parsers, str] | None:
        """The parsers of the file that defines an imported name, and that name there."""
        found = self._workspace.definition(self.home, name)
        return (found[0].get(Parsers), found[1]) if found else None

    def _made_by(self, statement: Statement, name: str, value: ast.expr) -> Parser | None:
        key = statement.steps, name
        if key not in self._made:
            self._made[key] = self._make(statement, name, value)
        return self._made[key]

    def _make(self, statement: Statement, name: str, value: ast.expr) -> Parser | None:
        kind = self._kind(dotted(value.func)) if isinstance(value, ast.Call) else None
        if kind is None or not isinstance(value, ast.Call):
            return None
        last = self._last_argument(statement, name)
        return Parser(self.home, statement.steps, name, statement, value, kind, last)

    def _bound_to(
        self, name: str | None, scope: Scope, depth: int
    ) -> list[tuple[Statement, Parser]]:
        """The statements that give a parser this name."""
        found = []
        for statement, value in self.module.assigned(name, scope) if name else ():
            function = dotted(value.func) if isinstance(value, ast.Call) else None
            parser = self._made_by(statement, name or "", value) or self.returned_by(
                function, depth
            )
            if parser is not None:
                found.append((statement, parser))
        return found

    def _last_argument(self, created: Statement, name: str) -> Statement:
        """The last statement of the parser's suite that prepares it, before it is used, or the name
        is another one's."""
        last, owners = created, {name}
        for node in created.suite[created.index + 1 :]:
            bound = list(assignments(node))
            if _parses(node, name) or name in dict(bound):
                break
            for target, value in bound:
                if isinstance(value, ast.Call) and method(value) in _GROUPS:
                    owners.add(target)
            if _prepares(node, owners):
                last = self.module.statement(node)
        return last


def _parses(node: ast.stmt, parser: str) -> bool:
    calls = (call for call in walk(node) if isinstance(call, ast.Call))
    return any(method(call) in PARSE_METHODS and receiver(call) == parser for call in calls)


def _prepares(node: ast.stmt, owners: set[str]) -> bool:
    """Whether a statement adds something to a parser or its groups, but commands."""
    for call in walk(node):
        if isinstance(call, ast.Call) and receiver(call) in owners:
            name = method(call) or ""
            adds = name.startswith("add_") and name not in ("add_subparsers", "add_parser")
            if adds or name == "set_defaults":
                return True
    return False


def receiver(call: ast.Call) -> str | None:
    """`x` of a call `x.f()`."""
    return dotted(call.func.value) if isinstance(call.func, ast.Attribute) else None
