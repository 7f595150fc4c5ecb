"""Queries, keys and values as a fused call takes them: without scale and copied heads, which the
call does itself."""

from __future__ import annotations

import ast
import dataclasses

from flash_codemods.handwritten import layouts
from flash_codemods.handwritten.values import Binding
from flash_codemods.handwritten.writing.heads import CopiedHeads
from flash_codemods.handwritten.writing.operand import Operand
from flash_codemods.handwritten.writing.reasons import CannotSay
from flash_codemods.handwritten.writing.snippets import atom
from flash_codemods.handwritten.writing.text import Edit

_PLURALS = {"query": "queries", "key": "keys", "value": "values"}


class Operands(CopiedHeads):
    """Finds what the call is given."""

    def _operand(self, node: ast.expr, names: dict[str, Binding], role: str) -> Operand:
        """What is multiplied, without a scale: that becomes the call's."""
        parts = self._scaled(node) if role != "value" and isinstance(node, ast.BinOp) else None
        if parts is not None:
            inner = self._operand(parts[0], names, role)
            inner.factors.append(parts[1])
            return inner
        layout = self._layout(role)
        if isinstance(node, ast.Name):
            binding = names.get(node.id)
            scaled = binding if role != "value" else None
            if scaled is not None and (bare := self._scaled_before(node, scaled)) is not None:
                return self._ordered(bare, layout)
        if layout is None and (bare := self._bare(node, names, role)) is not None:
            return bare
        if isinstance(node, ast.Name):
            return self._ordered(Operand(node.id, f"{node.id}.dtype"), layout)
        if role == "query" and isinstance(node, ast.BinOp) and self._is_scaled_name(node):
            # By something that may be an array: the queries stay scaled by it.
            text = (
                self.text.of(node)
                if layout is None and self.rank == 4
                else atom(self.text.of(node))
            )
            return self._ordered(Operand(text, self._kind_of(node.left)), layout)
        if not self._is_movable(node):
            raise CannotSay(f"the {_PLURALS[role]} have no name", node)
        operand = Operand(atom(self.text.of(node)), self._kind_of(node))
        cast = self._cast_name(node)
        if cast is None or layout is not None:
            return self._ordered(operand, layout)
        named = self._named(cast, names, role)
        return dataclasses.replace(
            named, text=named.text + operand.text.removeprefix(cast.id), kind=operand.kind
        )

    def _cast_name(self, node: ast.expr) -> ast.Name | None:
        """`keys` of `keys.astype(mx.float32)`."""
        operation = self.names.operation(node)
        of = operation.arguments[0] if operation and operation.name == "astype" else None
        return of if isinstance(of, ast.Name) else None

    def _is_scaled_name(self, node: ast.BinOp) -> bool:
        """`queries * self.scale`."""
        return (
            isinstance(node.op, ast.Mult)
            and isinstance(node.left, ast.Name)
            and isinstance(node.right, ast.Name | ast.Attribute)
        )

    def _layout(self, role: str) -> list[int] | None:
        """How an einsum's operand is transposed to what the call takes."""
        if self.scores.layout is not None and role != "value":
            query, key, scores = self.scores.layout
            own = query if role == "query" else key
            batch = scores[:-2]
            rest = [letter for letter in own if letter not in batch]
            positions = scores[-2] if role == "query" else scores[-1]
            features = next(letter for letter in rest if letter != positions)
            return layouts.order(own, batch + positions + features)
        if self.found.layout is not None and role == "value":
            weights, values, _ = self.found.layout
            features = next(letter for letter in values if letter not in weights)
            return layouts.order(values, weights[:-2] + weights[-1] + features)
        return None

    def _ordered(self, operand: Operand, order: list[int] | None) -> Operand:
        if order is not None:
            operand.text = f"{operand.text}.transpose({', '.join(map(str, order))})"
        return operand

    def _scaled_before(self, node: ast.Name, binding: Binding) -> Operand | None:
        """Queries or keys that a statement of its own, used for nothing else, has scaled."""
        statement = binding.statement
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.BinOp):
            return None
        if statement not in self._suite_of(self.found.statement) or binding.uses != [node]:
            return None
        if len(statement.targets) != 1 or (parts := self._scaled(statement.value)) is None:
            return None
        inner, factor = parts
        gone: list[ast.AST] = [factor.node]
        if isinstance(inner, ast.Name):
            if inner.id != node.id and self._binding_of(inner) is not self._at_call(inner.id):
                return None
            edits = [self._removal(statement)]
            name = inner.id
            gone = [statement]
            return Operand(name, f"{name}.dtype", edits, gone, [factor])
        start, end = self.text.span(statement.value)
        inner_start, inner_end = self.text.with_brackets(inner)
        edits = [
            Edit(start, inner_start, ""),
            Edit(inner_end, end, ""),
        ]
        edits = [edit for edit in edits if edit.start < edit.end]
        return Operand(node.id, f"{node.id}.dtype", edits, gone, [factor])

    def _is_movable(self, node: ast.expr) -> bool:
        """Whether an expression gives the same a few lines further down."""
        if isinstance(node, ast.Name | ast.Constant):
            return True
        if isinstance(node, ast.Attribute):
            return self._is_movable(node.value)
        if isinstance(node, ast.Subscript):
            return self._is_movable(node.value)
        operation = self.names.operation(node)
        return operation is not None and all(
            self._is_movable(argument)
            for argument in operation.arguments
            if not isinstance(argument, ast.Starred | ast.UnaryOp | ast.BinOp | ast.Tuple)
        )

    def _kind_of(self, node: ast.expr) -> str:
        """An expression that has the type of an operand."""
        operation = self.names.operation(node)
        if operation is not None and operation.name == "astype":
            kind = operation.argument(1, "dtype")
            return self.text.of(kind) if kind is not None else ""
        if operation is not None and operation.arguments:
            return self._kind_of(operation.arguments[0])
        if isinstance(node, ast.Subscript):
            return self._kind_of(node.value)
        return f"{atom(self.text.of(node))}.dtype"
