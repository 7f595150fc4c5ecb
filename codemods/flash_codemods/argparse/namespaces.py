"""What becomes of the arguments that a module parses: the name they get, and whether they are
passed on as a whole."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TypeGuard

from flash_codemods.argparse.bindings import parses_known, target, unwrap
from flash_codemods.argparse.inputs import PARSE_METHODS, Input, Inputs, argument, arguments
from flash_codemods.argparse.options import READ_ONLY_BUILTINS, AddedBy, Options, method
from flash_codemods.argparse.parsers import (
    Constructor,
    Lookup,
    Parser,
    ParserReader,
    names_in_argparse,
)
from flash_integrate.errors import UnreadableSource
from flash_integrate.python.syntax import Function, Statement, dotted, is_docstring, own_nodes, walk

_MOST_NAMESPACES = 200
_Found = tuple[Statement, str, bool, "str | None"]
"""The statement, target, escape and entry of a namespace."""


@dataclass(frozen=True)
class Namespace:
    """A place where the parsed arguments get a name.

    `target` is that name; `mapping` says that it is a dict (`vars(...)`); `escapes` that it is
    passed on as a whole; `fixed` that it was parsed from a literal list, so it holds defaults and
    not the user's choice; `leaves_rest` that it was parsed by a method which leaves over what it
    does not know. `statement` is where it is bound; where `entry` is the name of a function, the
    statement is the first of it, and the namespace a parameter.
    """

    parser: Parser
    statement: Statement
    target: str
    mapping: bool = False
    escapes: bool = False
    fixed: bool = False
    leaves_rest: bool = False
    entry: str | None = None

    @property
    def can_be_followed(self) -> bool:
        """Whether a whole line can be inserted where the namespace is to be read."""
        return self.statement.starts_its_line if self.entry else self.statement.ends_its_line


@dataclass(frozen=True)
class Unbound:
    """A parse call whose namespace never gets a name that a new line could use."""

    statement: Statement
    parser: Parser
    reason: str


@dataclass(frozen=True)
class ArgparseFacts:
    """A module's use of argparse. `factories` and `returned` are its functions that return a
    parser, or a parsed namespace (and whether that is a dict): also for the modules that import
    them, as `constructors` and `added_by`. `extensions` are the options that it adds to parsers,
    also to those of other files; `parsed` are the statements in which a namespace comes about, and
    `prompted` those that parse what is not the program's command line."""

    parsers: list[Parser] = field(default_factory=list)
    constructors: dict[str, Constructor] = field(default_factory=dict)
    added_by: AddedBy = field(default=lambda function: None)
    extensions: dict[Parser, Options] = field(default_factory=dict)
    inspects_parsers: bool = False
    factories: dict[str, Parser] = field(default_factory=dict)
    returned: dict[str, tuple[Parser, bool]] = field(default_factory=dict)
    parsed: list[tuple[Statement, Parser]] = field(default_factory=list)
    prompted: list[tuple[Statement, Parser]] = field(default_factory=list)
    namespaces: list[Namespace] = field(default_factory=list)
    unbound: list[Unbound] = field(default_factory=list)

    @property
    def parsers_used(self) -> list[Parser]:
        """The parsers with which the module parses arguments, its own and those of other files."""
        parsers = [*(use.parser for use in self.namespaces), *(use.parser for use in self.unbound)]
        return list(dict.fromkeys([*parsers, *(parser for _, parser in self.prompted)]))


def read_argparse(
    home: PurePosixPath, tree: ast.Module, found: list[Statement], lookup: Lookup
) -> ArgparseFacts:
    """The parsers and namespaces of the module `home`, `found` being its statements."""
    reader = ParserReader(home, tree, found, lookup)
    facts = ArgparseFacts(
        reader.parsers,
        reader.constructors,
        reader.added_by,
        reader.extensions,
        bool(reader.parsers) and reader.inspects_parsers,
        reader.factories,
    )
    _NamespaceReader(reader, facts).read()
    return facts


class _NamespaceReader:
    def __init__(self, reader: ParserReader, facts: ArgparseFacts) -> None:
        self.reader = reader
        self.facts = facts
        functions = {node.name: node for node in reader.tree.body if isinstance(node, Function)}
        self.inputs = Inputs(reader.tree, reader.statements, functions)
        # What a decorated one does with its arguments is not known.
        self.functions = {name: node for name, node in functions.items() if not node.decorator_list}
        nodes = walk(reader.tree)
        self.makes_namespace = names_in_argparse("Namespace", nodes)
        classes = (node for node in nodes if isinstance(node, ast.ClassDef))
        self.methods = {id(item) for node in classes for item in node.body}
        self.names_read = Counter(node.id for node in nodes if _is_read(node))
        self.names_shared = {
            name
            for node in nodes
            if isinstance(node, ast.Global | ast.Nonlocal)
            for name in node.names
        }

    def read(self) -> None:
        for _ in range(
            3
        ):  # a function may return what another returned; deeper chains are not written
            self.facts.namespaces.clear()
            self.facts.unbound.clear()
            self.facts.parsed.clear()
            self.facts.prompted.clear()
            before = len(self.facts.returned)
            for statement in self.reader.statements:
                for call in own_nodes(statement.node):
                    if isinstance(call, ast.Call):
                        self._classify(statement, call)
                if (
                    len(self.facts.namespaces) > _MOST_NAMESPACES
                ):  # each is looked for in the whole file
                    raise UnreadableSource(
                        f"parses arguments in more than {_MOST_NAMESPACES} places", statement.line
                    )
            if len(self.facts.returned) == before:
                break

    def _classify(self, statement: Statement, call: ast.Call) -> None:
        """Says what becomes of the value of `call`, if that is a parsed namespace."""
        parsed = self._parsed_by(statement, call)
        if parsed is None:
            return
        parser, mapping = parsed
        parses = method(call) in PARSE_METHODS and isinstance(call.func, ast.Attribute)
        read = self.inputs.of(call, statement.scope) if parses else Input.USERS
        if read is Input.OTHER:
            self.facts.prompted.append((statement, parser))
            return
        self.facts.parsed.append((statement, parser))
        if parses and (reason := self._doubt(statement, call)) is not None:
            self.facts.unbound.append(Unbound(statement, parser, reason))
            return
        expression, mapping = unwrap(statement.node, call, mapping)
        if self._is_returned(statement, call, expression):
            self._remember_return(statement, parser, mapping)
            return
        fixed = read is Input.FIXED
        if fixed and isinstance(statement.node, ast.Expr) and statement.node.value is call:
            return  # `parser.parse_args(["train", "--help"])` is for what it prints
        found = self._named(statement, expression, call) or self._passed(statement.node, expression)
        if found is None:
            reason = "the parsed arguments are used in the statement that parses them"
            self.facts.unbound.append(Unbound(statement, parser, reason))
        else:
            at, name, escapes, entry = found
            namespace = Namespace(
                parser, at, name, mapping, escapes, fixed, parses_known(call), entry
            )
            self.facts.namespaces.append(namespace)

    def _doubt(self, statement: Statement, call: ast.Call) -> str | None:
        """Why it is not known which parser a parse call is of, or what kind of namespace it
        fills."""
        expression = call.func.value if isinstance(call.func, ast.Attribute) else call.func
        if self.reader.is_mistakable(expression, statement):
            return f"{dotted(expression)} may be one of several parsers here"
        into = argument(call, 1, "namespace")
        if into is None or (isinstance(into, ast.Constant) and into.value is None):
            return None
        if (
            isinstance(into, ast.Call)
            and dotted(into.func) in self.makes_namespace
            and not (into.args or into.keywords)
        ):
            return None
        return (
            "parses into an object of its own, which may not take other names, or is used elsewhere"
        )

    def _remember_return(self, statement: Statement, parser: Parser, mapping: bool) -> None:
        function = statement.scope.node
        if id(function) in self.methods:  # who calls it, on which object, is not known
            self.facts.unbound.append(
                Unbound(statement, parser, "a method returns the parsed arguments at once")
            )
        elif (
            isinstance(function, Function) and function.decorator_list
        ):  # it may return the same twice
            reason = f"{function.name}, which returns the parsed arguments, is decorated"
            self.facts.unbound.append(Unbound(statement, parser, reason))
        elif isinstance(function, Function):
            self.facts.returned[function.name] = (parser, mapping)

    def _named(self, statement: Statement, expression: ast.expr, call: ast.Call) -> _Found | None:
        """Where the statement itself gives the namespace a name."""
        name = target(statement.node, expression, call)
        if name is None:
            return None
        # An attribute can be reached from anywhere, and so can what has two names.
        shared = "." in name or (
            isinstance(statement.node, ast.Assign) and len(statement.node.targets) > 1
        )
        return statement, name, shared or self._escapes(name, statement.scope.node, set()), None

    def _passed(self, node: ast.stmt, expression: ast.expr) -> _Found | None:
        """Where it becomes the parameter of a function of this module, which nothing else calls."""
        entry = self._parameter(node, expression)
        if entry is None or self.names_read[entry[0].name] > 1:
            return None
        function, parameter = entry
        body = [node for node in function.body if not is_docstring(node)] or function.body
        first = self.reader.by_node[id(body[0])]
        return first, parameter, self._escapes(parameter, function, set()), function.name

    def _parsed_by(self, statement: Statement, call: ast.Call) -> tuple[Parser, bool] | None:
        """The parser whose namespace `call` returns, and whether it comes as a dict."""
        if method(call) in PARSE_METHODS and isinstance(call.func, ast.Attribute):
            parser = self.reader.parser_of(call.func.value, statement)
            if parser is not None:
                return parser, False
        name = dotted(call.func)
        if name is None or name in self.facts.returned:
            return self.facts.returned.get(name or "")
        found = self.reader.lookup(name)
        return found[0].returned.get(found[1]) if found else None

    def _is_returned(self, statement: Statement, call: ast.Call, expression: ast.expr) -> bool:
        pair = expression is call and parses_known(call)
        in_function = isinstance(statement.scope.node, Function)
        node = statement.node
        return (
            isinstance(node, ast.Return) and node.value is expression and in_function and not pair
        )

    def _parameter(self, node: ast.stmt, expression: ast.expr) -> tuple[Function, str] | None:
        """The local function and its parameter that receive `expression`, as in
        `main(parser.parse_args())`."""
        for call in own_nodes(node):
            if not isinstance(call, ast.Call):
                continue
            function = self.functions.get(dotted(call.func) or "")
            if function is None:
                continue
            for name, value in arguments(call, function):
                if value is expression:
                    return function, name
        return None

    def _escapes(self, name: str, within: ast.AST, seen: set[tuple[int, str]]) -> bool:
        """Whether a namespace is ever used as a whole: passed on, printed, turned into a dict,
        returned."""
        if (id(within), name) in seen:
            return False
        seen.add((id(within), name))
        # A global can be used in every function, a local only where it is in scope.
        everywhere = name in self.names_shared
        nodes = list(walk(self.reader.tree) if everywhere else _walk_scope(within, name))
        harmless: set[int] = set()
        for node in nodes:
            part = node if isinstance(node, ast.Attribute | ast.Subscript) else None
            # `args.__dict__` and `args._get_kwargs()` are the whole namespace.
            if (
                part is not None
                and not getattr(part, "attr", "").startswith("_")
                and dotted(part.value) == name
            ):
                harmless.add(id(part.value))
            elif isinstance(node, ast.Call):
                harmless.update(self._harmless_arguments(node, name, seen))
        return any(
            isinstance(getattr(node, "ctx", None), ast.Load)
            and dotted(node) == name
            and id(node) not in harmless
            for node in nodes
        )

    def _harmless_arguments(
        self, call: ast.Call, name: str, seen: set[tuple[int, str]]
    ) -> Iterator[int]:
        function = self.functions.get(dotted(call.func) or "")
        if dotted(call.func) in READ_ONLY_BUILTINS:
            yield from (id(argument) for argument in call.args[:1] if dotted(argument) == name)
        elif function is not None:
            for parameter, value in arguments(call, function):
                if dotted(value) == name and not self._escapes(parameter, function, seen):
                    yield id(value)


def _is_read(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)


def _walk_scope(within: ast.AST, name: str) -> Iterator[ast.AST]:
    """The nodes below `within` that see its `name`: not those of inner functions with a `name` of
    their own."""
    todo = [within]
    while todo:
        node = todo.pop()
        yield node
        for child in ast.iter_child_nodes(node):
            if not (isinstance(child, Function | ast.Lambda) and _binds(child, name)):
                todo.append(child)


def _binds(function: Function | ast.Lambda, name: str) -> bool:
    arguments = function.args
    parameters = [
        *arguments.posonlyargs,
        *arguments.args,
        *arguments.kwonlyargs,
        arguments.vararg,
        arguments.kwarg,
    ]
    if any(parameter is not None and parameter.arg == name for parameter in parameters):
        return True
    stored = (
        node
        for node in walk(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    return any(node.id == name for node in stored)
