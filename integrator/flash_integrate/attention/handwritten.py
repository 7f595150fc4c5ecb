"""Attention written out: what a softmax makes of a product is multiplied again. No patch can route
it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from flash_integrate.python.syntax import Function, own_nodes, walk

_PRODUCTS = {"matmul", "einsum"}


def handwritten_attention(root: ast.AST) -> Iterator[int]:
    """The lines of the softmaxes of `softmax(q @ k.T) @ v`, each function looked at for itself.

    A softmax at the end of a perceptron is none: nothing is multiplied by what it gives.
    """
    for node in walk(root):
        if node is root or isinstance(node, Function):
            yield from _Variables().attention(node)


class _Variables:
    """Which variables of a function were made of a product, and which by the softmax of one."""

    def __init__(self) -> None:
        self.scores: set[str] = set()
        self.weights: dict[str, int] = {}
        """With the line of the softmax."""

    def attention(self, function: ast.AST) -> Iterator[int]:
        """The lines of the softmaxes by which a function multiplies; it is read from above to
        below."""
        for statement in _own_statements(function):
            for operand in (
                operand for node in own_nodes(statement) for operand in _operands(node)
            ):
                if (line := self._softmax_in(operand)) is not None:
                    yield line
            if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                self._bind(statement, statement.value)

    def _bind(self, statement: ast.Assign | ast.AnnAssign, value: ast.expr) -> None:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for name in (target.id for target in targets if isinstance(target, ast.Name)):
            if (line := self._softmax_in(value)) is not None:
                self.weights[name] = line
            elif self._is_made_of_product(value):
                self.scores.add(name)

    def _softmax_in(self, node: ast.expr) -> int | None:
        """The line of the softmax whose weights an expression is, also masked, cast or dropped
        out."""
        todo = [node]
        while todo:
            part = todo.pop()
            if isinstance(part, ast.Name) and part.id in self.weights:
                return self.weights[part.id]
            if isinstance(part, ast.Attribute | ast.Subscript):
                todo.append(part.value)
            elif isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult | ast.Div):
                todo += [part.right, part.left]
            elif isinstance(part, ast.Call):
                given = _given(part)
                if _called(part) == "softmax" and any(map(self._is_made_of_product, given)):
                    return part.lineno
                todo += reversed(given)
        return None

    def _is_made_of_product(self, node: ast.expr) -> bool:
        return any(
            _operands(part) or (isinstance(part, ast.Name) and part.id in self.scores)
            for part in walk(node)
        )


def _own_statements(root: ast.AST) -> list[ast.stmt]:
    """The statements below a node, without those of the functions within it."""
    found: list[ast.stmt] = []
    todo = [root]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.stmt):
            found.append(node)
        if node is root or not isinstance(node, Function):
            todo.extend(ast.iter_child_nodes(node))
    return sorted(found, key=lambda statement: (statement.lineno, statement.col_offset))


def _operands(node: ast.AST) -> list[ast.expr]:
    """What a product multiplies; nothing for any other node."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        return [node.left, node.right]
    return _given(node) if isinstance(node, ast.Call) and _called(node) in _PRODUCTS else []


def _given(call: ast.Call) -> list[ast.expr]:
    """What a call works on: its arguments, and the object of which it is a method."""
    owner = [call.func.value] if isinstance(call.func, ast.Attribute) else []
    return [*owner, *call.args, *(keyword.value for keyword in call.keywords)]


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""
