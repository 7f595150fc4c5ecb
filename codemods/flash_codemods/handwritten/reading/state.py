"""What is known while a function is read, and what has become of its attention."""

from __future__ import annotations

import ast

from flash_codemods.handwritten.operations import Names, Operation
from flash_codemods.handwritten.reading.classes import ClassFacts
from flash_codemods.handwritten.values import (
    Binding,
    Found,
    Lost,
    Number,
    Other,
    Refused,
    Scores,
    Value,
    Weights,
)


class State:
    """The names that are bound; what is attention is kept in `found`, what is nearly so in
    `refused`."""

    def __init__(
        self, names: Names, owner: ClassFacts, constants: dict[str, ast.expr], depth: int = 0
    ) -> None:
        self.names = names
        self.owner = owner
        self.constants = constants
        self.depth = depth
        self.env: dict[str, Binding] = {}
        self.bound: list[Binding] = []
        """All bindings, in the order in which they are read."""
        self.functions: dict[str, ast.FunctionDef] = {}
        self.found: list[Found] = []
        self.refused: list[Refused] = []
        self.sizes: set[str] = set()
        """Names from outside the function by which it gives arrays a shape: they are numbers."""
        self.returned_nodes: list[tuple[ast.expr, dict[str, Binding]]] = []
        """What the function returns, with what the names in it stand for."""
        self.statement: ast.stmt = ast.Pass(lineno=0, col_offset=0)
        self.loop: ast.stmt | None = None
        self.no_keys: dict[ast.expr, Lost] = {}
        """Products of which a softmax makes no weights that are known, and why."""

    def _bind(
        self,
        name: str,
        value: Value,
        statement: ast.stmt | None,
        parents: tuple[Binding, ...] = (),
    ) -> None:
        made = getattr(statement, "value", None)
        seen = self.bindings(made) if isinstance(made, ast.expr) else {}
        binding = Binding(name, statement, value, parents, seen=seen)
        self.env[name] = binding
        self.bound.append(binding)

    def _change(self, name: str | None, node: ast.AST) -> None:
        """A name is changed in place, deleted, or bound by something else than an assignment: from
        here on it stands for another thing, taken to be of the same kind. To scores and weights
        that is a use like any other."""
        old = self.env.get(name or "")
        if old is not None and not isinstance(old.value, Scores | Weights | Lost):
            place = ast.copy_location(ast.Pass(), node)  # no assignment whose value is the name's
            self._bind(old.name, old.value, place, (old,))

    def value(self, node: ast.expr) -> Value:
        """What an expression is."""
        method = getattr(self, f"_{type(node).__name__.lower()}", self._anything)
        value: Value = method(node)
        return value

    def bindings(self, *nodes: ast.AST) -> dict[str, Binding]:
        """What the names in expressions stand for here."""
        return {
            part.id: self.env[part.id]
            for node in nodes
            for part in ast.walk(node)
            if isinstance(part, ast.Name) and part.id in self.env
        }

    def _anything(self, node: ast.expr) -> Value:
        return self._children(node)

    def _children(self, node: ast.AST) -> Value:
        """Marks what an expression of no interest uses; scores in it are lost."""
        result: Value = Other()
        for child in ast.iter_child_nodes(node):
            value = self.value(child) if isinstance(child, ast.expr) else self._children(child)
            if isinstance(value, Scores | Weights | Lost):
                result = self._lose(value, node, "are used in a way that is not followed")
        return result

    def _learn_numbers(self, operation: Operation) -> None:
        if operation.name == "reshape" and len(operation.axes("shape")) > 1:
            for size in operation.axes("shape"):
                if isinstance(size, ast.Name) and size.id not in self.env:
                    self.sizes.add(size.id)

    def _lose(self, of: Scores | Weights | Lost, node: ast.AST, reason: str) -> Lost:
        if isinstance(of, Lost):
            return of
        what = "weights" if isinstance(of, Weights) else "scores"
        product = of.scores.product if isinstance(of, Weights) else of.product
        line = getattr(node, "lineno", self.statement.lineno)
        return Lost(product, f"the {what} {reason}", line, isinstance(of, Weights))

    def refuse(self, of: Lost) -> None:
        """Keeps why attention is none that can be offered."""
        if all(known.product is not of.product for known in self.refused):
            self.refused.append(Refused(of.reason, of.line, of.product))

    def _is_number(self, node: ast.expr) -> bool:
        return isinstance(self.value(node), Number)


def short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 40 else text[:37] + "..."
