"""The `ArgumentParser`s of a file: which expressions stand for one, and where its arguments end."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from flash_codemods.argparse.uses import parses_as_its_base
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.module import Module
from flash_integrate.python.syntax import Statement, assignments, dotted, method, walk

PARSE_METHODS = {"parse_args", "parse_known_args"}
GROUPS = {"add_argument_group", "add_mutually_exclusive_group"}
_COMMANDS = {"add_subparsers", "add_parser"}


@dataclass(frozen=True)
class ParserClass:
    """`ArgumentParser`, or a class of the file `home` that inherits it; `is_plain`: one that takes
    arguments and gives namespaces as argparse's own does."""

    home: PurePosixPath | None = None
    is_plain: bool = True


@dataclass(frozen=True)
class Parser:
    """A parser, told from others by the file and the line that make it, and its name there."""

    home: PurePosixPath
    line: int
    name: str
    created: Statement = field(compare=False, repr=False)
    kind: ParserClass = field(compare=False)
    keywords: dict[str | None, ast.expr] = field(compare=False, repr=False)
    """What it is made with."""


class Parsers:
    """Which expressions of a file stand for parsers, its own and those of other files."""

    def __init__(self, facts: FileFacts) -> None:
        self._home, self._module, self._workspace = facts.name, facts.module, facts.workspace

    def meant_by(self, expression: ast.expr, at: Statement) -> list[Parser | None]:
        """The parsers that an expression in the statement `at` may stand for: a name, an attribute,
        or a call of a function that returns one. None is among them where it may be another one,
        or anything else."""
        if isinstance(expression, ast.Call):
            return self._returned_by(expression)
        found: list[Parser | None] = []
        for statement, value in self._assigned(expression, at):
            made = self._made(expression, statement, value)
            found += [made] if made is not None else self._returned_by(value) or [None]
        return found

    def _assigned(self, expression: ast.expr, at: Statement) -> list[tuple[Statement, ast.expr]]:
        name = dotted(expression)
        return self._module.assigned(name, at.scope) if name is not None else []

    def _made(self, target: ast.expr, statement: Statement, value: ast.expr) -> Parser | None:
        """The parser that an assignment makes."""
        kind = self._kind(dotted(value.func)) if isinstance(value, ast.Call) else None
        if kind is None or not isinstance(value, ast.Call):
            return None
        keywords = {item.arg: item.value for item in value.keywords}
        name = dotted(target) or ""
        return Parser(self._home, statement.line, name, statement, kind, keywords)

    def _returned_by(self, call: ast.expr) -> list[Parser | None]:
        """The parsers that the function which is called makes and returns, of this file or
        imported."""
        function = dotted(call.func) if isinstance(call, ast.Call) else None
        if function is None:
            return []
        if self._module.defines(function) is None:
            found = self._workspace.definition(self._home, function)
            return found[0].get(Parsers)._returned_here(found[1]) if found else []
        return self._returned_here(function)

    def _returned_here(self, function: str) -> list[Parser | None]:
        node = self._module.defines(function)
        found: list[Parser | None] = []
        for at in self._module.inside(node) if node is not None else ():
            if isinstance(at.node, ast.Return) and at.node.value is not None:
                assigned = self._assigned(at.node.value, at)
                found += [self._made(at.node.value, *item) for item in assigned] or [None]
        return found

    def _kind(self, name: str | None) -> ParserClass | None:
        """`ArgumentParser` or a class that inherits it, of this file or imported, by its name."""
        if _is_argparse(self._module, name):
            return ParserClass()
        node, home, module = self._module.defines(name), self._home, self._module
        if name is not None and node is None:
            found = self._workspace.definition(home, name)
            if found is not None:
                home, module = found[0].name, found[0].module
                node = module.defines(found[1])
        if not isinstance(node, ast.ClassDef):
            return None
        if not any(_is_argparse(module, dotted(base)) for base in node.bases):
            return None
        return ParserClass(home, len(node.bases) == 1 and parses_as_its_base(node))


def _is_argparse(module: Module, name: str | None) -> bool:
    return module.qualified(name) == "argparse.ArgumentParser"


def last_argument(module: Module, parser: Parser) -> Statement:
    """The last statement of the parser's suite that adds something to it before it is used: below
    it the flags go."""
    created = parser.created
    last, owners = created, {parser.name}
    for node in created.suite[created.index + 1 :]:
        if _parses(node, parser.name):
            break
        for target, value in assignments(node):
            if isinstance(value, ast.Call) and method(value) in GROUPS:
                owners.add(target)
        if _adds(node, owners):
            last = module.statement(node)
    return last


def _parses(node: ast.stmt, parser: str) -> bool:
    calls = (call for call in walk(node) if isinstance(call, ast.Call))
    return any(method(call) in PARSE_METHODS and receiver(call) == parser for call in calls)


def _adds(node: ast.stmt, owners: set[str]) -> bool:
    """Whether a statement adds something to a parser or its groups, but commands."""
    for call in walk(node):
        if isinstance(call, ast.Call) and receiver(call) in owners:
            name = method(call) or ""
            if name == "set_defaults" or (name.startswith("add_") and name not in _COMMANDS):
                return True
    return False


def receiver(call: ast.Call) -> str | None:
    """`x` of a call `x.f()`."""
    return dotted(call.func.value) if isinstance(call.func, ast.Attribute) else None
