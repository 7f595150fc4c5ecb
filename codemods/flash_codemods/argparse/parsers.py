"""The `ArgumentParser`s that a module builds: where their arguments end, and which expressions
stand for them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from flash_codemods.argparse.inputs import PARSE_METHODS, names_from
from flash_codemods.argparse.options import Adders, Adding, Options, assignments, method, receiver
from flash_codemods.argparse.overrides import behaves_as_its_base
from flash_codemods.argparse.strangers import adds_to_strangers
from flash_integrate.errors import UnreadableSource
from flash_integrate.python.syntax import Function, Scope, Statement, dotted, walk

if TYPE_CHECKING:
    from flash_codemods.argparse.namespaces import ArgparseFacts

MOST_PARSERS = 50
INTERNALS = {"_actions", "_action_groups", "_option_string_actions", "_group_actions"}

Lookup = Callable[[str], "tuple[ArgparseFacts, str] | None"]
"""From a name that a file imports from the project to the facts of the file that defines it, and
its name there."""


@dataclass(frozen=True)
class Constructor:
    """`ArgumentParser` or a subclass of it: the options that making one and parsing with it may
    add, those that its own methods add, and whether it takes arguments and gives namespaces as
    argparse's own class does."""

    options: Options = field(default_factory=Options)
    methods: dict[str, Options] = field(default_factory=dict)
    is_plain: bool = True


@dataclass(eq=False)
class Parser:
    """An `ArgumentParser` of the file `home`: the name it is bound to and the statement after
    which flags can go.

    `parents` are the parsers of the project from which it takes arguments.
    """

    home: PurePosixPath
    name: str
    created: Statement
    call: ast.Call
    last_argument: Statement
    constructor: Constructor
    options: Options = field(default_factory=Options)
    parents: list[Parser] = field(default_factory=list)


class _Binding(NamedTuple):
    """A statement that gives a parser a name."""

    at: Statement
    parser: Parser


class ParserReader:
    """Finds the parsers of one module, and tells for an expression which parser it stands for."""

    def __init__(
        self, home: PurePosixPath, tree: ast.Module, found: list[Statement], lookup: Lookup
    ) -> None:
        self.home = home
        self.tree = tree
        self.statements = found
        self.lookup = lookup
        self.by_node = {id(statement.node): statement for statement in found}
        self.added_by = Adders(tree, partial(_added_by_imported, lookup))
        self.constructors = {
            name: Constructor() for name in names_in_argparse("ArgumentParser", walk(tree))
        }
        self.factories: dict[str, Parser] = {}
        self.parsers: list[Parser] = []
        self.extensions: dict[Parser, Options] = {}
        self._bindings: dict[tuple[int, str], list[_Binding]] = {}
        self._find_subclasses()
        self._find_parsers()
        if len(self.parsers) > MOST_PARSERS:  # each is looked for in the whole file
            raise UnreadableSource(
                f"builds more than {MOST_PARSERS} parsers", self.parsers[-1].created.line
            )
        self._find_factories()
        for parser in self.parsers:
            self._find_arguments(parser)
        self._find_extensions()

    def parser_of(self, expression: ast.expr | None, at: Statement) -> Parser | None:
        """The parser that an expression in the statement `at` stands for: a name, an attribute, or
        a call of a function that returns one. Of several that have the name, the last one
        before."""
        if isinstance(expression, ast.Call):
            return self._returned_by(dotted(expression.func))
        bound = self._bound_to(dotted(expression), at.scope)
        return (
            max(bound, key=lambda one: (one.at.line <= at.line, one.at.line)).parser
            if bound
            else None
        )

    def is_mistakable(self, expression: ast.expr, at: Statement) -> bool:
        """Whether the expression may also stand for another parser than `parser_of` says."""
        parser, bound = self.parser_of(expression, at), self._bound_to(dotted(expression), at.scope)
        own = next((one.at for one in bound if one.parser is parser), at)
        others = [one.at for one in bound if one.parser is not parser]
        between = any(own.line < other.line <= at.line for other in others)
        return bool(others) and (between or own.scope is not at.scope or not own.precedes(at))

    def _bound_to(self, name: str | None, scope: Scope) -> list[_Binding]:
        at: Scope | None = scope
        while at is not None and name is not None:
            if (id(at.node), name) in self._bindings:
                return self._bindings[id(at.node), name]
            at = at.parent
        return []

    def _returned_by(self, function: str | None) -> Parser | None:
        if function is None or function in self.factories:
            return self.factories.get(function or "")
        found = self.lookup(function)
        return found[0].factories.get(found[1]) if found else None

    def _constructor(self, name: str | None) -> Constructor | None:
        """`ArgumentParser` or a subclass of it, here or in another file of the project, by its
        name."""
        if name is None or name in self.constructors:
            return self.constructors.get(name or "")
        found = self.lookup(name) if name.rpartition(".")[2][:1].isupper() else None
        return found[0].constructors.get(found[1]) if found else None

    def _find_subclasses(self) -> None:
        for statement in self.statements:
            node = statement.node
            bases = (
                map(self._constructor, map(dotted, node.bases))
                if isinstance(node, ast.ClassDef)
                else ()
            )
            base = next((base for base in bases if base is not None), None)
            if isinstance(node, ast.ClassDef) and base is not None:
                self.constructors[node.name] = self._subclass(node, base)

    def _subclass(self, node: ast.ClassDef, base: Constructor) -> Constructor:
        options = Options()
        options.update(base.options)
        bodies = {item.name: item for item in node.body if isinstance(item, Function)}
        methods = dict(base.methods)
        for _ in range(3):  # a method may call others; deeper chains are not written
            methods |= {
                name: Adding("self", self.added_by, methods).options_of(item.body)
                for name, item in bodies.items()
            }
        for name in bodies.keys() & {"__init__", *PARSE_METHODS}:
            options.update(methods[name], certain=False)
        is_plain = base.is_plain and len(node.bases) == 1 and behaves_as_its_base(bodies)
        return Constructor(options, methods, is_plain)

    def _find_parsers(self) -> None:
        for statement in self.statements:
            for name, value in assignments(statement.node):
                constructor = (
                    self._constructor(dotted(value.func)) if isinstance(value, ast.Call) else None
                )
                if isinstance(value, ast.Call) and constructor is not None:
                    parser = Parser(self.home, name, statement, value, statement, constructor)
                    self.parsers.append(parser)
                    self._bind(statement, name, parser)

    def _find_factories(self) -> None:
        """Functions that return a parser, and the names that calls of them are bound to."""
        for statement in self.statements:
            value = statement.node.value if isinstance(statement.node, ast.Return) else None
            if value is not None and isinstance(statement.scope.node, Function):
                parser = self.parser_of(value, statement)
                if parser is not None and not self.is_mistakable(value, statement):
                    self.factories.setdefault(statement.scope.node.name, parser)
        for statement in self.statements:
            for name, value in assignments(statement.node):
                parser = self.parser_of(value, statement) if isinstance(value, ast.Call) else None
                if parser is not None:
                    self._bind(statement, name, parser)

    def _bind(self, at: Statement, name: str, parser: Parser) -> None:
        # `self.parser` is reached from every method: it is looked up in the module.
        owner = self.tree if "." in name else at.scope.node
        self._bindings.setdefault((id(owner), name), []).append(_Binding(at, parser))

    def _find_arguments(self, parser: Parser) -> None:
        """The last statement of the parser's suite that adds an argument, before the parser is
        used."""
        parser.options.update(parser.constructor.options)
        for inherited in self._parents(parser):
            if inherited is not None:
                parser.parents.append(inherited)
            parser.options.update(
                Options(has_unknown=True) if inherited is None else inherited.options
            )
        adding = Adding(parser.name, self.added_by, parser.constructor.methods)
        bound = self._bound_to(parser.name, parser.created.scope)
        others = [one.at.node for one in bound if one.parser is not parser]
        for node in parser.created.suite[parser.created.index + 1 :]:
            calls = (call for call in walk(node) if isinstance(call, ast.Call))
            if any(
                method(call) in PARSE_METHODS and receiver(call) == parser.name for call in calls
            ):
                break
            if node in others:  # from here on the name is another one's
                break
            parser.options.update(adding.options_in(node))
            if adding.adds_in(node):
                parser.last_argument = self.by_node[id(node)]

    def _parents(self, parser: Parser) -> Iterator[Parser | None]:
        """The parsers from which it takes arguments; None for what is not known."""
        for keyword in parser.call.keywords:
            if keyword.arg == "parents":
                elements = (
                    keyword.value.elts
                    if isinstance(keyword.value, ast.List | ast.Tuple)
                    else [keyword.value]
                )
                yield from (self.parser_of(element, parser.created) for element in elements)

    def _find_extensions(self) -> None:
        """What the module adds to each parser, its own and those of other files, wherever it has a
        name for it."""
        bodies = {
            id(statement.scope.node): statement.scope.node.body for statement in self.statements
        }
        every = (
            [node.body for node in walk(self.tree) if isinstance(node, Function)]
            if self._bindings
            else []
        )
        for (scope, name), bound in self._bindings.items():
            for at, parser in bound:
                own = self.extensions.setdefault(parser, Options())
                adding = Adding(name, self.added_by, parser.constructor.methods)
                within = [bodies.get(scope, [])] if len(bound) == 1 else [at.suite[at.index :]]
                for body in every if "." in name else within:
                    own.update(adding.options_of(body), certain=False)
        others = bool(self._bindings) and adds_to_strangers(
            self.statements, {name for _, name in self._bindings}
        )
        for own in self.extensions.values():
            own.has_unknown |= others
        for parser in self.parsers:
            parser.options.update(self.extensions[parser])

    @cached_property
    def inspects_parsers(self) -> bool:
        """Whether the module looks into argparse's own tables, where it would meet the flags."""
        return any(
            isinstance(node, ast.Attribute) and node.attr in INTERNALS for node in walk(self.tree)
        )


def _added_by_imported(lookup: Lookup, function: str) -> Options | None:
    found = lookup(function) if function else None
    return found[0].added_by(found[1]) if found else None


def names_in_argparse(name: str, nodes: list[ast.AST]) -> set[str]:
    """The dotted names under which a module, of which these are the nodes, reaches a class of
    argparse."""
    imports = (alias for node in nodes if isinstance(node, ast.Import) for alias in node.names)
    modules = {alias.asname or alias.name for alias in imports if alias.name == "argparse"}
    return {*(f"{module}.{name}" for module in modules), *names_from("argparse", name, nodes)}
