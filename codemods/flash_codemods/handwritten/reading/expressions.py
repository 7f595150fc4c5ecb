"""What an expression is, by what it is made of: an array of so many axes, scores, weights."""

from __future__ import annotations

import ast
import dataclasses
import re

from flash_codemods.handwritten.operations import (
    integer,
)
from flash_codemods.handwritten.reading.axes import indexed
from flash_codemods.handwritten.reading.calls import Calls
from flash_codemods.handwritten.reading.classes import SCALE, self_attribute
from flash_codemods.handwritten.reading.scores import is_plain_number, with_product
from flash_codemods.handwritten.values import (
    Array,
    Items,
    Lost,
    Number,
    Other,
    Scores,
    Shape,
    Value,
    Weights,
)

_SETTINGS = re.compile(r"^_?(model_)?(config|cfg|args|hparams)$")


class Expressions(Calls):
    """Names, their parts, and arithmetic."""

    def _name(self, node: ast.Name) -> Value:
        if (binding := self.env.get(node.id)) is not None:
            binding.used(node)
            if isinstance(node.ctx, ast.Del):
                self._change(node.id, node)
            return binding.value
        if node.id in self.sizes:
            return Number()
        constant = self.constants.get(node.id)
        return (
            Number()
            if isinstance(constant, ast.Constant) and is_plain_number(constant)
            else Other()
        )

    def _namedexpr(self, node: ast.NamedExpr) -> Value:
        value = self._children(node)
        self._change(node.target.id, node)
        return value

    def _constant(self, node: ast.Constant) -> Value:
        return Number() if is_plain_number(node) else Other()

    def _attribute(self, node: ast.Attribute) -> Value:
        if (name := self_attribute(node)) is not None:
            return Number() if self.owner.is_number(name) else Array()
        if self.names.full(node) is not None:
            return Number() if node.attr in ("inf", "pi") else Other()
        of = self.value(node.value)
        if node.attr == "shape":
            return Shape(of.rank if isinstance(of, Array) else None)
        if node.attr in ("ndim", "size"):
            return Number()
        if node.attr == "dtype":
            return Other()
        if isinstance(of, Scores | Weights | Lost):
            return self._lose(of, node, f"are read by their `{node.attr}`")
        if self._is_setting(node):
            return Number()
        if node.attr == "T" and isinstance(of, Array):
            return dataclasses.replace(of, transposed=True, single=False)
        return Array() if node.attr in ("real", "imag") else Other()

    def _is_setting(self, node: ast.Attribute) -> bool:
        """`config.head_dim`, `self.config.head_dim`, or the `scale` of a module that is not seen
        here: no array, whatever else it is."""
        of = node.value
        if isinstance(of, ast.Name):
            return _SETTINGS.match(of.id) is not None or SCALE.match(node.attr) is not None
        return isinstance(of, ast.Attribute) and _SETTINGS.match(of.attr) is not None

    def _subscript(self, node: ast.Subscript) -> Value:
        of = self.value(node.value)
        self._children(node.slice)
        if not isinstance(node.ctx, ast.Load) and isinstance(node.value, ast.Name):
            self._change(node.value.id, node)
        if isinstance(of, Shape):
            return Shape() if isinstance(node.slice, ast.Slice) else Number()
        if isinstance(of, Scores | Weights | Lost):
            return self._lose(of, node, "are taken apart")
        if isinstance(of, Items) and (index := integer(node.slice)) is not None:
            return of.values[index] if -len(of.values) <= index < len(of.values) else Other()
        if not isinstance(of, Array):
            return Array()
        return with_product(indexed(of, node.slice), of.product)

    def _unaryop(self, node: ast.UnaryOp) -> Value:
        of = self.value(node.operand)
        if isinstance(of, Scores | Weights | Lost):
            return self._lose(of, node, "have their sign changed")
        return of if isinstance(of, Number | Array) else Other()

    def _binop(self, node: ast.BinOp) -> Value:
        if isinstance(node.op, ast.MatMult):
            return self.product(node, node.left, node.right)
        left, right = self.value(node.left), self.value(node.right)
        sides = (left, right)
        if any(isinstance(side, Scores | Weights | Lost) for side in sides):
            return self._on_scores(node, node.op, node.left, node.right, left, right)
        if isinstance(left, Number) and isinstance(right, Number):
            return Number()
        arrays = [side for side in sides if isinstance(side, Array)]
        made = [side for side in arrays if side.product is not None]
        if made:
            return made[0]
        ranks = [side.rank for side in arrays]
        known = [rank for rank in ranks if rank is not None]
        if arrays and len(known) == len(ranks):
            first = max(arrays, key=lambda side: side.rank or 0)
            return Array(max(known), first.transposed, all(side.single for side in arrays))
        # Of an array and something that may be a number, the array's axes are the result's.
        return arrays[0] if len(arrays) == 1 and known else Array(max(known, default=None))

    def _compare(self, node: ast.Compare) -> Value:
        values = [self.value(part) for part in (node.left, *node.comparators)]
        for of in values:
            if isinstance(of, Scores | Weights | Lost):
                return self._lose(of, node, "are compared")
        ranks = [value.rank for value in values if isinstance(value, Array)]
        known = [rank for rank in ranks if rank is not None]
        return Array(max(known) if known and len(known) == len(ranks) else None)

    def _boolop(self, node: ast.BoolOp) -> Value:
        """`scale or dim**-0.5` is a number, as both are."""
        values = [self.value(part) for part in node.values]
        for of in values:
            if isinstance(of, Scores | Weights | Lost):
                return self._lose(of, node, "are used in a way that is not followed")
        return Number() if all(isinstance(of, Number) for of in values) else Other()

    def _ifexp(self, node: ast.IfExp) -> Value:
        self._children(node.test)
        return self.meet(self.value(node.body), self.value(node.orelse), node)

    def _tuple(self, node: ast.Tuple) -> Value:
        return Items(tuple(self.value(item) for item in node.elts))

    def _list(self, node: ast.List) -> Value:
        return Items(tuple(self.value(item) for item in node.elts))

    def _starred(self, node: ast.Starred) -> Value:
        return self.value(node.value)
