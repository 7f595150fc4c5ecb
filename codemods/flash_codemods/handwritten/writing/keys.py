"""Keys, that a fused call takes with their features last, as the values."""

from __future__ import annotations

import ast
import re

from flash_codemods.handwritten.operations import Operation, permutation
from flash_codemods.handwritten.values import Factor
from flash_codemods.handwritten.writing.operand import Operand
from flash_codemods.handwritten.writing.operands import Operands
from flash_codemods.handwritten.writing.reasons import CannotSay
from flash_codemods.handwritten.writing.snippets import atom
from flash_codemods.handwritten.writing.text import Edit


class Keys(Operands):
    """Finds the keys before they were transposed."""

    def _key(self) -> Operand:
        """The keys as the call takes them, features last."""
        node = self.scores.key
        factors: list[Factor] = []
        while isinstance(node, ast.BinOp) and (parts := self._scaled(node)) is not None:
            node = parts[0]
            factors.append(parts[1])
        if self.scores.layout is not None:
            key = self._operand(node, self.scores.names, "key")
        elif (inner := self._swapped(node)) is not None:
            key = self._operand(inner, self.scores.names, "key")
        elif isinstance(node, ast.Name):
            key = self._key_made_transposed(node)
        else:
            key = self._key_transposed_here(node)
        key.factors += factors
        return key

    def _key_transposed_here(self, node: ast.expr) -> Operand:
        """`keys.transpose(0, 2, 3, 1)`, of keys [B, L, H, D], in the product."""
        operation = self.names.operation(node)
        order = permutation(operation, 4) if operation is not None else None
        if operation is None or operation.name != "transpose" or order is None:
            raise CannotSay("the keys have no name", node)
        inner = operation.arguments[0]
        if len(order) != 4 or not self._is_movable(inner):
            raise CannotSay("the keys have no name", node)
        order = [*order[:-2], order[-1], order[-2]]
        text = f"{atom(self.text.of(inner))}.transpose({', '.join(map(str, order))})"
        return Operand(text, self._kind_of(inner))

    def _key_made_transposed(self, node: ast.Name) -> Operand:
        """Keys whose name stands for them transposed."""
        binding = self.scores.names.get(node.id)
        statement = binding.statement if binding is not None else None
        plain = Operand(f"{node.id}.swapaxes(-1, -2)", f"{node.id}.dtype")
        if binding is None or not isinstance(statement, ast.Assign) or binding.uses != [node]:
            return plain
        if len(statement.targets) != 1 or not isinstance(statement.targets[0], ast.Name):
            return plain
        made, factors = statement.value, []
        edits: list[Edit] = []
        if isinstance(made, ast.BinOp) and (parts := self._scaled(made)) is not None:
            end = self.text.span(made)[1]
            edits = [Edit(self.text.with_brackets(parts[0])[1], end, "")]
            if not edits[0].start < edits[0].end or parts[0] is not made.left:
                return plain
            made, factors = parts[0], [parts[1]]
        operation = self.names.operation(made)
        if operation is None:
            return plain
        inner = self._swapped(made)
        gone: list[ast.AST] = [factor.node for factor in factors]
        inside = self._scaled(inner) if isinstance(inner, ast.BinOp) else None
        of, scales = (inside[0], [inside[1]]) if inside is not None else (inner, [])
        if isinstance(of, ast.Name) and not factors and self._is_there(of, node.id):
            removal = [self._removal(statement), *self._comments_on_transposing(statement)]
            named = self._named(of, binding.seen, "key")
            named.edits += removal
            named.gone.append(statement)
            named.factors += scales
            return named
        order = self._reordered(operation)
        if order is None:
            return plain
        edits.append(order)
        return Operand(node.id, f"{node.id}.dtype", edits, gone, factors)

    def _comments_on_transposing(self, statement: ast.stmt) -> list[Edit]:
        """The comments right above a transposition that goes, where they speak of it."""
        return [
            edit
            for comment, edit in self.text.comments_above(statement)
            if re.search(r"transpos|swap", comment, re.IGNORECASE)
        ]

    def _is_there(self, node: ast.Name, rebound: str) -> bool:
        """Whether a name means the same where the call is made, `rebound` no longer bound anew."""
        binding = self._binding_of(node)
        last = [item for item in self.reader.bound if item.name == node.id][-1]
        return node.id == rebound or binding in (self._at_call(node.id), last)

    def _reordered(self, operation: Operation) -> Edit | None:
        """The edit that leaves features last in `transpose(0, 2, 3, 1)`."""
        axes = operation.axes("axes")
        order = permutation(operation, len(axes))
        if operation.name != "transpose" or order is None or len(order) < 3:
            return None
        order = [*order[:-2], order[-1], order[-2]]
        if order == sorted(order) or not all(isinstance(axis, ast.Constant) for axis in axes):
            return None
        start, end = self.text.span(axes[0])[0], self.text.span(axes[-1])[1]
        return Edit(start, end, ", ".join(map(str, order)))
