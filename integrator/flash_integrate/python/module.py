"""What a module says, read once: its statements, its nodes by kind, what its imports bind, and
which assignments give a name its value."""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from flash_integrate.python.source import Source
from flash_integrate.python.syntax import (
    Function,
    Scope,
    Statement,
    assignments,
    statements,
)

Node = TypeVar("Node", bound=ast.AST)


@dataclass(frozen=True)
class Imported:
    """A name that an import binds: `from {dots}{module} import {name} as {bound}`, or without a
    `name` the module itself (`import a.b` binds `a.b`). `always`: at module level, so not in a
    function, nor under a condition."""

    bound: str
    dots: int
    module: str
    name: str | None
    line: int
    always: bool

    @property
    def package(self) -> str:
        """The package, of which a relative import says nothing."""
        return "" if self.dots else self.module.partition(".")[0]

    @property
    def is_for_mlx(self) -> bool:
        """Whether the module's name says that it is for MLX."""
        return "mlx" in self.module or "mflux" in self.module


class Module:
    """One view of a source file's syntax, for all who ask."""

    def __init__(self, source: Source) -> None:
        self.tree = source.tree
        self.nodes = source.nodes
        self.text = source.text

    @cached_property
    def statements(self) -> list[Statement]:
        """Every statement, in document order."""
        return statements(self.tree, self.text)

    @cached_property
    def top(self) -> list[Statement]:
        """The statements at module level."""
        return [statement for statement in self.statements if len(statement.steps) == 1]

    def of_kind(self, kind: type[Node]) -> list[Node]:
        """The nodes of one class, in no order to rely on."""
        return self._by_kind[kind]  # type: ignore[return-value]

    @cached_property
    def _by_kind(self) -> defaultdict[type[ast.AST], list[ast.AST]]:
        found = defaultdict[type[ast.AST], list[ast.AST]](list)
        for node in self.nodes:
            found[node.__class__].append(node)
        return found

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """Of every node the one that it is a part of."""
        return {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}

    def statement(self, node: ast.stmt) -> Statement:
        return self._by_node[id(node)]

    @cached_property
    def _by_node(self) -> dict[int, Statement]:
        return {id(statement.node): statement for statement in self.statements}

    def inside(self, function: ast.AST) -> list[Statement]:
        """The statements of a function, without those of functions within it."""
        return self._by_scope.get(id(function), [])

    @cached_property
    def _by_scope(self) -> dict[int, list[Statement]]:
        found: dict[int, list[Statement]] = {}
        for statement in self.statements:
            found.setdefault(id(statement.scope.node), []).append(statement)
        return found

    # Names

    @cached_property
    def imports(self) -> list[Imported]:
        """What imports bind, wherever they stand."""
        top = set(map(id, self.tree.body))
        found: list[Imported] = []
        for node in self.of_kind(ast.Import):
            found += [
                Imported(item.asname or item.name, 0, item.name, None, node.lineno, id(node) in top)
                for item in node.names
            ]
        for star in self.of_kind(ast.ImportFrom):
            found += [
                Imported(
                    item.asname or item.name,
                    star.level,
                    star.module or "",
                    item.name,
                    star.lineno,
                    id(star) in top,
                )
                for item in star.names
            ]
        return found

    @cached_property
    def import_by_name(self) -> dict[str, Imported]:
        """The import that binds each name, of those for MLX and others, `try: from mlx_lm import
        generate` and `except ImportError: from server import generate`, the one for MLX."""
        found: dict[str, Imported] = {}
        for item in self.imports:
            if item.is_for_mlx or item.bound not in found or not found[item.bound].is_for_mlx:
                found[item.bound] = item
        return found

    def imported(self, name: str | None) -> tuple[Imported, str] | None:
        """The import that binds a dotted name, or the longest beginning of it, and what follows."""
        return longest_bound(self.import_by_name, name) if name else None

    def qualified(self, name: str | None) -> str | None:
        """What a dotted name stands for by the imports: `argparse.ArgumentParser` for `Parser`
        after `from argparse import ArgumentParser as Parser`; None if no import binds it."""
        found = self.imported(name)
        if found is None:
            return None
        item, tail = found
        parts = (item.module, item.name or "", tail)
        return "." * item.dots + ".".join(part for part in parts if part)

    @cached_property
    def bound(self) -> dict[str, list[ast.stmt]]:
        """The statements at module level that define or assign a dotted name, in their order."""
        found: dict[str, list[ast.stmt]] = {}
        for node in self.tree.body:
            if isinstance(node, Function | ast.ClassDef):
                names = [node.name]
            else:
                names = [name for name, _ in assignments(node)]
            for name in names:
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def definitions(self) -> dict[str, ast.stmt]:
        """The functions, classes and variables of the module by name, each as it is at its end."""
        return {name: nodes[-1] for name, nodes in self.bound.items() if "." not in name}

    def defines(self, name: str | None) -> Function | ast.ClassDef | None:
        """The function or class of the module that has this name."""
        for node in self.bound.get(name or "", []):
            if isinstance(node, Function | ast.ClassDef):
                return node
        return None

    @cached_property
    def all_assignments(self) -> list[tuple[str, ast.expr]]:
        """The (name, value) pairs of the assignments in any scope."""
        nodes = (*self.of_kind(ast.Assign), *self.of_kind(ast.AnnAssign))
        return [pair for node in nodes for pair in assignments(node)]

    def assigned(self, name: str, scope: Scope) -> list[tuple[Statement, ast.expr]]:
        """The assignments that give `name` its value as a scope sees it: those of the innermost
        scope with any. An attribute is reached from every function: it is the module's."""
        at: Scope | None = scope
        while at is not None:
            owner: ast.AST = self.tree if "." in name else at.node
            if found := self._assigned.get((id(owner), name)):
                return found
            at = at.parent
        return []

    @cached_property
    def _assigned(self) -> dict[tuple[int, str], list[tuple[Statement, ast.expr]]]:
        found: dict[tuple[int, str], list[tuple[Statement, ast.expr]]] = {}
        for statement in self.statements:
            for name, value in assignments(statement.node):
                owner: ast.AST = self.tree if "." in name else statement.scope.node
                found.setdefault((id(owner), name), []).append((statement, value))
        return found


def longest_bound(imported: dict[str, Imported], name: str) -> tuple[Imported, str] | None:
    """Which import binds a dotted name: `a.b` is looked for before `a`; and what follows."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        item = imported.get(".".join(parts[:count]))
        if item is not None:
            return item, ".".join(parts[count:])
    return None
