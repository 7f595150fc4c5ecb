"""Numbers by which queries and keys are multiplied before their product."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager

from flash_codemods.handwritten.values import Binding, Factor, Number, Value
from flash_codemods.handwritten.writing.draft import Draft


class Factors(Draft):
    """Tells an operand from its scale."""

    def _scaled(self, node: ast.BinOp) -> tuple[ast.expr, Factor] | None:
        """An operand and the number by which it is multiplied or divided."""
        if not isinstance(node.op, ast.Mult | ast.Div):
            return None
        divides = isinstance(node.op, ast.Div)
        if self._is_number(node.right):
            return node.left, Factor(node.right, divides, self.reader_names(node.right))
        if not divides and self._is_number(node.left):
            return node.right, Factor(node.left, False, self.reader_names(node.left))
        return None

    def reader_names(self, node: ast.AST) -> dict[str, Binding]:
        """What the names in a number stand for where the product is made."""
        return {
            part.id: binding
            for part in ast.walk(node)
            if isinstance(part, ast.Name)
            for binding in self.reader.bound
            if part in binding.uses and binding.name == part.id
        }

    def _is_number(self, node: ast.expr) -> bool:
        return isinstance(self._value(node, self.reader_names(node)), Number)

    def _value(self, node: ast.expr, names: dict[str, Binding]) -> Value:
        """What an expression is where names stand for what is given."""
        before = self.reader.env
        self.reader.env = {**before, **names}
        with self._as_read():
            value = self.reader.value(node)
        self.reader.env = before
        return value

    def _swapped(self, node: ast.expr) -> ast.expr | None:
        """What an expression transposes, if it exchanges the last two axes."""
        with self._as_read():
            return self.reader.swapped(node)

    @contextmanager
    def _as_read(self) -> Iterator[None]:
        """Asks the reader for values: the uses of names stay those that it has read."""
        counts = {id(binding): len(binding.uses) for binding in self.reader.bound}
        yield
        for binding in self.reader.bound:
            del binding.uses[counts[id(binding)] :]
