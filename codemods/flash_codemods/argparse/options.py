"""The options that code adds to a parser, as far as they can be told."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from flash_integrate.python.syntax import Function, dotted, walk

READ_ONLY_BUILTINS = {"getattr", "hasattr", "setattr", "isinstance", "id"}
_PLAIN_ACTIONS = {
    "store",
    "store_const",
    "store_true",
    "store_false",
    "append",
    "append_const",
    "count",
    "extend",
}
GROUP_METHODS = {"add_argument_group", "add_mutually_exclusive_group"}


@dataclass
class Options:
    """Long options as they are spelled, the names that all arguments get in the namespace, and
    whether there may be others: where names are computed, or the parser is handed to code that is
    not known. `plain` are the options that are there in any case, and whose action does not ask
    how they were spelled."""

    names: set[str] = field(default_factory=set)
    plain: set[str] = field(default_factory=set)
    dests: set[str] = field(default_factory=set)
    has_unknown: bool = False

    def __bool__(self) -> bool:
        return bool(self.names or self.dests or self.has_unknown)

    def update(self, other: Options, *, certain: bool = True) -> None:
        """Takes up what other code adds, which runs in any case if it is `certain` to."""
        self.names |= other.names
        self.plain |= other.plain if certain else set()
        self.dests |= other.dests
        self.has_unknown |= other.has_unknown


AddedBy = Callable[[str], "Options | None"]
"""From the name of a function to what it adds to a parser that it is given."""


def method(call: ast.Call) -> str | None:
    """`f` of a call `x.f()`."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else None


def receiver(call: ast.Call) -> str | None:
    """`x` of a call `x.f()`, also where a group is made in between:
    `x.add_argument_group().f()`."""
    value = call.func.value if isinstance(call.func, ast.Attribute) else None
    if isinstance(value, ast.Call) and method(value) in GROUP_METHODS:
        return receiver(value)
    return dotted(value)


def assignments(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """The (name, value) pairs of an assignment to names or attributes."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if (name := dotted(target)) is not None:
                yield name, node.value
    elif (
        isinstance(node, ast.AnnAssign)
        and node.value is not None
        and (name := dotted(node.target)) is not None
    ):
        yield name, node.value


class Adding:
    """Looks for what code adds to one parser, which it knows by the name `parser` to begin with.

    `adders` says what the functions add to which the parser is handed, `methods` what its own
    methods add.
    """

    def __init__(
        self, parser: str, adders: AddedBy, methods: Mapping[str, Options] = MappingProxyType({})
    ) -> None:
        self.parser = parser
        self.adders = adders
        self.methods = methods
        self.owners = {parser}
        """Names for the parser and its groups."""
        self.functions: set[str] = set()
        """Names for their `add_argument`."""

    def options_of(self, body: Iterable[ast.stmt]) -> Options:
        found = Options()
        for node in body:
            found.update(self.options_in(node))
        return found

    def options_in(self, node: ast.stmt) -> Options:
        """What one statement of the parser's suite adds."""
        for part in walk(node):
            for name, value in assignments(part):
                self._learn(name, value)
        found = Options()
        computed: list[ast.Call] = []
        certain = isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign | ast.Return)
        for call in (part for part in walk(node) if isinstance(part, ast.Call)):
            if self._adds_one(call):
                if (option := _option_of(call)) is None:
                    computed.append(call)
                else:
                    found.update(option, certain=certain)
            elif (own := self._own_method(call)) is not None:
                found.update(own, certain=certain)
            elif self._is_given(call):
                added = self.adders(dotted(call.func) or "")
                found.update(Options(has_unknown=True) if added is None else added, certain=certain)
                for (
                    own
                ) in self.methods.values():  # which of them the function calls is not looked for
                    found.update(own, certain=False)
        if computed:
            found.update(_computed_options(computed, node), certain=certain)
        return found

    def adds_in(self, node: ast.stmt) -> bool:
        """Whether a statement adds arguments: to the parser or one of its groups, or in a function
        that is given it."""
        return any(
            self._adds_one(call)
            or self._prepares(call)
            or self._is_given(call)
            or bool(self._own_method(call))
            for call in walk(node)
            if isinstance(call, ast.Call)
        )

    def _learn(self, name: str, value: ast.expr) -> None:
        if (
            isinstance(value, ast.Call)
            and method(value) in GROUP_METHODS
            and receiver(value) in self.owners
        ):
            self.owners.add(name)
        if (
            isinstance(value, ast.Attribute)
            and value.attr == "add_argument"
            and dotted(value.value) in self.owners
        ):
            self.functions.add(name)

    def _adds_one(self, call: ast.Call) -> bool:
        on_owner = method(call) == "add_argument" and receiver(call) in self.owners
        return on_owner or dotted(call.func) in self.functions

    def _own_method(self, call: ast.Call) -> Options | None:
        return self.methods.get(method(call) or "") if receiver(call) == self.parser else None

    def _prepares(self, call: ast.Call) -> bool:
        """Whether a call does something else on the parser that belongs to its arguments: a group,
        a default."""
        name = method(call) or ""
        others = name.startswith("add_") and name not in ("add_subparsers", "add_parser")
        return (others or name == "set_defaults") and receiver(call) in self.owners

    def _is_given(self, call: ast.Call) -> bool:
        if dotted(call.func) in READ_ONLY_BUILTINS:
            return False
        values = [
            *call.args,
            *(keyword.value for keyword in call.keywords if keyword.arg != "parents"),
        ]
        return any(dotted(value) in self.owners for value in values)


class Adders:
    """What each function of a module adds to a parser that it is given; `outside` knows those that
    it imports."""

    def __init__(self, tree: ast.Module, outside: AddedBy) -> None:
        self.outside = outside
        self._functions = {node.name: node for node in tree.body if isinstance(node, Function)}
        self._found: dict[str, Options] = {}

    def __call__(self, name: str) -> Options | None:
        if name not in self._functions:
            return self.outside(name)
        if name not in self._found:
            self._found[name] = Options()  # ends a recursion
            arguments = self._functions[name].args
            for parameter in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
                self._found[name].update(
                    Adding(parameter.arg, self).options_of(self._functions[name].body)
                )
        return self._found[name]


def _option_of(call: ast.Call) -> Options | None:
    """What a call of `add_argument` defines; None where its names are computed."""
    if any(_string(argument) is None for argument in call.args):
        return None
    long = {
        value for value in map(_string, call.args) if value is not None and value.startswith("--")
    }
    given = next(
        (_string(keyword.value) for keyword in call.keywords if keyword.arg == "dest"), None
    )
    first = next((argument for argument in map(_string, call.args) if argument in long), None)
    name = given or first or (_string(call.args[0]) if call.args else None)
    action = next((keyword.value for keyword in call.keywords if keyword.arg == "action"), None)
    is_plain = action is None or _string(action) in _PLAIN_ACTIONS
    return Options(long, long if is_plain else set(), dests={_dest(name)} if name else set())


def _dest(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def _computed_options(calls: Iterable[ast.Call], within: ast.stmt) -> Options:
    """What calls such as `parser.add_argument(f"--{name}")` may define: strings of the innermost
    loop around each name the options."""
    loops = _innermost_loops(within)
    sources: dict[int, ast.expr] = {}
    for call in calls:
        loop = loops.get(id(call))
        sources |= {
            id(source): source for source in ([loop.iter] if loop is not None else call.args)
        }
    texts = (_string(part) or "" for source in sources.values() for part in walk(source))
    named = {f"--{text.lstrip('-')}" for text in texts if text.strip("-") and " " not in text}
    return Options(named, dests={_dest(option) for option in named}, has_unknown=True)


def _innermost_loops(within: ast.stmt) -> dict[int, ast.For]:
    """For each call that stands in a loop, by its `id`, the innermost one."""
    found: dict[int, ast.For] = {}
    todo: list[tuple[ast.AST, ast.For | None]] = [(within, None)]
    while todo:
        node, loop = todo.pop()
        loop = node if isinstance(node, ast.For) else loop
        if isinstance(node, ast.Call) and loop is not None:
            found[id(node)] = loop
        todo += [(child, loop) for child in ast.iter_child_nodes(node)]
    return found


def _string(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
