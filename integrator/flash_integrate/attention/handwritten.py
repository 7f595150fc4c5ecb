"""Attention written out: what a softmax makes of a product is multiplied again. No patch can route
it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from flash_integrate.python.module import Module
from flash_integrate.python.syntax import Function, own_nodes, walk

_PRODUCTS = {"matmul", "einsum", "addmm"}
_TRANSPOSES = {"transpose", "swapaxes", "moveaxis"}
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Module)


def handwritten_attention(module: Module, root: ast.AST) -> Iterator[ast.Call]:
    """The softmaxes of `softmax(q @ k.T) @ v` in a part of a module, each function looked at for
    itself.

    A softmax at the end of a perceptron is none: nothing is multiplied by what it gives.
    """
    nodes = module.nodes if root is module.tree else walk(root)
    calls = [node for node in nodes if isinstance(node, ast.Call) and _called(node) == "softmax"]
    for node in nodes if calls else ():
        if isinstance(node, _SCOPES):
            if _spans_one_of(node, calls):
                yield from _Variables().attention(item.node for item in module.inside(node))
        elif node is root and isinstance(node, ast.stmt):
            yield from _Variables().attention([node])


def _spans_one_of(scope: ast.AST, calls: list[ast.Call]) -> bool:
    """Whether the lines of a function hold one of some calls, as those of a module always do."""
    if not isinstance(scope, Function):
        return True
    end = scope.end_lineno or scope.lineno
    return any(scope.lineno <= call.lineno <= end for call in calls)


class _Variables:
    """Which variables of a function were made of a product, and which by the softmax of one."""

    def __init__(self) -> None:
        self.scores: set[str] = set()
        self.weights: dict[str, ast.Call] = {}
        """With the softmax."""

    def attention(self, statements: Iterable[ast.stmt]) -> Iterator[ast.Call]:
        """The softmaxes by which the statements of a function multiply; it is read from above to
        below."""
        for statement in statements:
            is_inner = isinstance(statement, Function)  # it may use the weights of this one
            for node in walk(statement) if is_inner else own_nodes(statement):
                for operand in _weights_in(node):
                    softmax = self._softmax_in(operand)
                    if softmax is not None and (not is_inner or softmax in self.weights.values()):
                        yield softmax
            if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                self._bind(statement, statement.value)

    def _bind(self, statement: ast.Assign | ast.AnnAssign, value: ast.expr) -> None:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for name in (target.id for target in targets if isinstance(target, ast.Name)):
            if (softmax := self._softmax_in(value)) is not None:
                self.weights[name] = softmax
            elif self._is_made_of_product(value):
                self.scores.add(name)

    def _softmax_in(self, node: ast.expr) -> ast.Call | None:
        """The softmax whose weights an expression is, also masked, cast or dropped
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
                    return part
                todo += reversed(given)
        return None

    def _is_made_of_product(self, node: ast.expr) -> bool:
        return any(
            _operands(part) or (isinstance(part, ast.Name) and part.id in self.scores)
            for part in walk(node)
        )


def _operands(node: ast.AST) -> list[ast.expr]:
    """What a product multiplies; nothing for any other node."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        return [node.left, node.right]
    return _given(node) if isinstance(node, ast.Call) and _called(node) in _PRODUCTS else []


def _weights_in(product: ast.AST) -> list[ast.expr]:
    """What may be weights in a product: the first of two arrays, or the second transposed. Where a
    second one stands as it is, what is summed over are the queries, as for a gradient."""
    operands = _operands(product)
    if len(operands) < 2 or _called(product) == "einsum":
        return operands
    return operands[:-1] if not _is_transposed(operands[-1]) else operands


def _is_transposed(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "T"
    return isinstance(node, ast.Call) and _called(node) in _TRANSPOSES


def _given(call: ast.Call) -> list[ast.expr]:
    """What a call works on: its arguments, and the object of which it is a method."""
    owner = [call.func.value] if isinstance(call.func, ast.Attribute) else []
    return [*owner, *call.args, *(keyword.value for keyword in call.keywords)]


def _called(node: ast.AST) -> str:
    """The last name of what a call calls; nothing for any other node."""
    called = node.func if isinstance(node, ast.Call) else None
    if isinstance(called, ast.Attribute):
        return called.attr
    return called.id if isinstance(called, ast.Name) else ""
