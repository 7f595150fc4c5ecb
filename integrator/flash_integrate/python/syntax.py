"""Statements of a module, each with the steps to it from the module's body, which `ast` and LibCST
share."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

Step = tuple[str, int]
"""A suite's field (`body`, `orelse`, `finalbody`, `handlers`, `cases`) and an index in it."""

Steps = tuple[Step, ...]
"""The steps from the module to a statement: `(("body", 4), ("body", 0))` is the first statement of
the fifth one."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, eq=False)
class Scope:
    """A module or function body; `parent` is the scope in which its free names are looked up."""

    node: ast.Module | Function
    parent: Scope | None


@dataclass(frozen=True, eq=False)
class Statement:
    """A statement, where it stands, and whether whole lines can be inserted before and after it."""

    node: ast.stmt
    steps: Steps
    scope: Scope
    suite: list[ast.stmt] = field(repr=False)
    starts_its_line: bool
    ends_its_line: bool

    @property
    def index(self) -> int:
        return self.steps[-1][1]

    @property
    def line(self) -> int:
        return self.node.lineno


def statements(tree: ast.Module, text: str) -> list[Statement]:
    """Every statement of the module that `text` holds, in document order."""
    found: list[Statement] = []
    lines = re.split(r"\r\n|\r|\n", text)
    _add_suite(found, tree.body, "body", (), Scope(tree, None), lines)
    return found


# Not a function within the other: that would refer to itself, and keep the tree until a garbage
# collection.
def _add_suite(
    found: list[Statement],
    suite: list[ast.stmt],
    name: str,
    prefix: Steps,
    scope: Scope,
    lines: list[str],
) -> None:
    """Adds the statements of a suite, each before those that are nested in it."""
    starts = bool(suite) and _starts_a_block(suite[0], lines)
    is_block = starts
    for index, node in enumerate(suite):
        steps = (*prefix, (name, index))
        following = suite[index + 1 : index + 2]
        ends = is_block and not (following and _share_a_line(node, following[0], lines))
        found.append(Statement(node, steps, scope, suite, starts, ends))
        inner = Scope(node, scope) if isinstance(node, Function) else scope
        for field_name in ("body", "orelse", "finalbody"):
            if nested := getattr(node, field_name, None):
                _add_suite(found, nested, field_name, steps, inner, lines)
        for field_name in ("handlers", "cases"):
            for position, child in enumerate(getattr(node, field_name, ())):
                clause = (*steps, (field_name, position))
                _add_suite(found, child.body, "body", clause, inner, lines)
        starts = ends  # the next one stands below this one, or beside it


def _share_a_line(one: ast.stmt, following: ast.stmt, lines: list[str]) -> bool:
    """Whether two statements stand on one line, which a backslash behind their semicolon may
    continue."""
    end = one.end_lineno or one.lineno
    if following.lineno <= end:
        return True
    last = lines[end - 1]
    return (
        last.endswith("\\")
        and re.fullmatch(rb"\s*;\s*\\\s*", last.encode()[one.end_col_offset or 0 :]) is not None
    )


def _starts_a_block(first: ast.stmt, lines: list[str]) -> bool:
    """Whether a suite's first statement has its line to itself: not the suite of `if quick:
    run()`, nor an `elif`, which `ast` takes for an `if` in the suite of an `else`."""
    before, after = (
        lines[first.lineno - 1][: first.col_offset],
        lines[first.lineno - 1][first.col_offset :],
    )
    return not before.strip() and not (isinstance(first, ast.If) and after.startswith("elif"))


_WITHOUT_NODES = {"id", "attr", "ctx", "asname", "conversion", "is_async", "kind", "level"}
_WITHOUT_NODES |= {"module", "simple", "type_comment", "type_ignores"}
"""The fields in which no node has another one below it, contexts aside."""
# Of names and constants, which half of a tree's nodes are, there are none.
_FIELDS_WITH_NODES = {
    kind: tuple(name for name in kind._fields if name not in _WITHOUT_NODES)
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
} | {ast.Constant: ()}
_NESTED = (ast.stmt, ast.ExceptHandler, ast.match_case)


def walk(root: ast.AST) -> list[ast.AST]:
    """Every node of a tree but the expression contexts, in no order to rely on: in half the time
    of `ast.walk`."""
    return _below(root, ())


def own_nodes(statement: ast.stmt) -> list[ast.AST]:
    """The nodes of a statement without those of the statements nested in it; else as `walk`."""
    return _below(statement, _NESTED)


def _below(root: ast.AST, but: tuple[type[ast.AST], ...]) -> list[ast.AST]:
    found = [root]
    for node in found:
        values = node.__dict__
        for name in _FIELDS_WITH_NODES[node.__class__]:
            value = values.get(name)
            if value.__class__ is not list:
                if isinstance(value, ast.AST):
                    found.append(value)
            elif value and not isinstance(value[0], but):  # a suite holds statements alone
                found += [item for item in value if isinstance(item, ast.AST)]
    return found


Placed = ast.stmt | ast.expr


def holds(node: Placed, inner: Placed) -> bool:
    """Whether a node of the same tree stands inside another, or is it: its text does."""
    starts = (node.lineno, node.col_offset) <= (inner.lineno, inner.col_offset)
    return starts and _end(inner) <= _end(node)


def _end(node: Placed) -> tuple[int, int]:
    return node.end_lineno or 0, node.end_col_offset or 0


def parameters(scope: ast.AST) -> set[str]:
    """The names of a function's parameters; none of a module."""
    found = walk(scope.args) if isinstance(scope, Function) else []
    return {node.arg for node in found if isinstance(node, ast.arg)}


def dotted(node: ast.AST | None) -> str | None:
    """`a.b.c` for a chain of attributes on a name, None for any other expression."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])


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


def method(call: ast.Call) -> str | None:
    """`f` of a call `x.f()`."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else None


def name_read(node: ast.AST) -> str | None:
    """The dotted name that a node reads, if it reads one."""
    is_load = isinstance(getattr(node, "ctx", None), ast.Load)
    return dotted(node) if is_load else None


def is_read(node: ast.AST, name: str) -> bool:
    """Whether a node reads that dotted name."""
    return name_read(node) == name


def is_special(name: str) -> bool:
    """Whether Python itself gives names of that kind a meaning, as `__file__`."""
    return name.startswith("__") and name.endswith("__")


def is_static(method: Function) -> bool:
    """Whether a method is given neither its object nor its class."""
    return "staticmethod" in map(dotted, method.decorator_list)


def last_name(node: ast.expr) -> object:
    """The name at the end of a chain of attributes, or the constant in its last brackets."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return node.slice.value
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)


def is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def guarded_suite(node: ast.stmt) -> str | None:
    """The suite of an `if` that runs only where the module is started as a program: `body`, or
    `orelse` where the test says that it is not; None for other statements."""
    if not isinstance(node, ast.If):
        return None
    if _compares_name(node.test, ast.NotEq):
        return "orelse" if node.orelse else None
    both = (
        isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And) and not node.orelse
    )
    tests = node.test.values if isinstance(node.test, ast.BoolOp) and both else [node.test]
    return (
        "body"
        if any(_compares_name(test, ast.Eq) or _compares_name(test, ast.In) for test in tests)
        else None
    )


def is_main_guard(node: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__":`, in any of the ways to write it."""
    return guarded_suite(node) is not None


def _compares_name(test: ast.expr, operator: type[ast.cmpop]) -> bool:
    """Whether a test compares `__name__` with `"__main__"`, either way round, or with several
    names."""
    if (
        not isinstance(test, ast.Compare)
        or len(test.ops) != 1
        or not isinstance(test.ops[0], operator)
    ):
        return False
    sides = [test.left, test.comparators[0]]
    names = [side.id for side in sides if isinstance(side, ast.Name)]
    several = [
        item
        for side in sides
        if isinstance(side, ast.Tuple | ast.List | ast.Set)
        for item in side.elts
    ]
    values = [item.value for item in [*sides, *several] if isinstance(item, ast.Constant)]
    return names == ["__name__"] and "__main__" in values
