"""The value of an expression: names, their parts, arithmetic."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

from flash_codemods.handwritten.operations import CORE, Names
from flash_codemods.handwritten.proving.missing import Missing, NotEvaluable, text_of
from flash_integrate.python.syntax import holds

_TYPES = {"float16", "bfloat16", "float32", "bool_", "int8", "int32", "int64", "uint8", "uint32"}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.MatMult: operator.matmul,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_METHODS: dict[type[ast.expr], str] = {
    ast.Attribute: "_attribute",
    ast.BinOp: "_binop",
    ast.BoolOp: "_boolop",
    ast.Call: "_call",
    ast.Compare: "_compare",
    ast.Constant: "_constant",
    ast.IfExp: "_ifexp",
    ast.List: "_list",
    ast.Name: "_name",
    ast.Subscript: "_subscript",
    ast.Tuple: "_tuple",
    ast.UnaryOp: "_unaryop",
}
# Axes and scale: what leaves an array the one that it was.
_TRANSPARENT = {"transpose", "swapaxes", "moveaxis", "astype", "repeat", "expand_dims"}
_LARGEST_ARRAY = 1 << 20
_LARGEST_NUMBER = 1 << 40


class Expressions:
    """Values in an environment; `inputs` stand in for the rest of the program."""

    def __init__(
        self,
        mx: Any,
        names: Names,
        inputs: dict[str, Any],
        types: dict[str, str] | None = None,
    ) -> None:
        self.mx = mx
        self.names = names
        self.inputs = inputs
        self.types = types or {}
        self.env: dict[str, Any] = {}
        self.functions: dict[str, ast.FunctionDef] = {}
        self.target: ast.expr | None = None
        self.ran: set[int] = set()
        """The lines of the statements that were run."""
        self._steps = 0

    def _suite(self, body: list[ast.stmt]) -> None:
        raise NotImplementedError

    def _call(self, node: ast.Call) -> Any:
        raise NotImplementedError

    def _is_foreign(self, node: ast.Call) -> bool:
        raise NotImplementedError

    def value(self, node: ast.expr) -> Any:
        may_be_cut = isinstance(node, ast.Call) and not self._leads_to_target(node)
        cut = self._cut(node) if may_be_cut else None
        if cut is not None:
            value = self._input(cut)
        else:
            method = _METHODS.get(type(node))
            if method is None:
                raise NotEvaluable(type(node).__name__)
            value = self._checked(getattr(self, method)(node))
        if node is self.target:
            raise Reached(value)
        return value

    def _cut(self, node: ast.expr) -> str | None:
        """What stands for an array before its heads were told apart: `x.reshape(B, L, H, -1)` is
        taken as one, whatever x is."""
        operation = self.names.operation(node)
        if operation is None or operation.name not in ("reshape", "split", "unflatten"):
            return None
        base: ast.expr = operation.arguments[0]
        while True:
            inner = self.names.operation(base)
            if inner is not None and inner.name in _TRANSPARENT:
                base = inner.arguments[0]
            elif isinstance(base, ast.Subscript):
                base = base.value
            else:
                break
        foreign = isinstance(base, ast.Call) and self._is_foreign(base)
        known = self.env.keys() | self.inputs.keys()
        unknown = isinstance(base, ast.Name) and base.id not in known
        return text_of(node) if foreign or unknown else None

    def _leads_to_target(self, node: ast.expr) -> bool:
        """Whether the result that is asked for stands inside an expression."""
        target = self.target
        return target is not None and target is not node and holds(node, target)

    def _input(self, key: str) -> Any:
        if key not in self.inputs:
            raise Missing(key)
        return self.inputs[key]

    def _checked(self, value: Any) -> Any:
        if isinstance(value, self.mx.array):
            if value.size > _LARGEST_ARRAY:
                raise NotEvaluable("an array is too large")
        elif type(value) is int and abs(value) > _LARGEST_NUMBER:
            raise NotEvaluable("a number is too large")
        elif isinstance(value, list | tuple) and len(value) > 64:
            raise NotEvaluable("a list is too long")
        return value

    def _name(self, node: ast.Name) -> Any:
        return self.env[node.id] if node.id in self.env else self._input(node.id)

    def _constant(self, node: ast.Constant) -> Any:
        return node.value

    def _attribute(self, node: ast.Attribute) -> Any:
        full = self.names.full(node)
        if full is not None:
            return self._of_module(full)
        text = text_of(node)
        if text.startswith("self.") or text in self.inputs:
            return self._input(text)
        is_of_array = node.attr in ("shape", "dtype", "ndim", "size", "T")
        try:
            of = self.value(node.value)
        except Missing as missing:
            if is_of_array or missing.key != text_of(node.value):
                raise
            return self._input(text)  # `cache.offset`: what is asked for is the attribute
        if isinstance(of, self.mx.array) and is_of_array:
            value = getattr(of, node.attr)
            return tuple(value) if node.attr == "shape" else value
        if isinstance(of, Limits) and node.attr in ("min", "max", "eps"):
            return getattr(of, node.attr)
        return self._input(text)

    def _of_module(self, full: str) -> Any:
        module, _, name = full.rpartition(".")
        if module == CORE and name in _TYPES:
            return getattr(self.mx, self.types.get(name, name))
        if module in (CORE, "math", "numpy") and name in ("inf", "pi"):
            return getattr(math, name)
        if module == CORE and name == "newaxis":
            return None
        raise NotEvaluable(full)

    def _subscript(self, node: ast.Subscript) -> Any:
        if not isinstance(node.value, ast.Attribute | ast.Subscript | ast.Name | ast.Call):
            raise NotEvaluable("takes a part of something else")
        text = text_of(node)
        if text in self.inputs:
            return self.inputs[text]
        of = self.value(node.value)
        if not isinstance(of, self.mx.array | tuple | list):
            return self._input(text)
        return of[self._index(node.slice)]

    def _index(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Tuple):
            return tuple(self._index(item) for item in node.elts)
        if isinstance(node, ast.Slice):
            parts = (node.lower, node.upper, node.step)
            return slice(*(None if part is None else self.value(part) for part in parts))
        return self.value(node)

    def _tuple(self, node: ast.Tuple) -> Any:
        return tuple(self._items(node.elts))

    def _list(self, node: ast.List) -> Any:
        return self._items(node.elts)

    def _items(self, nodes: list[ast.expr]) -> list[Any]:
        found: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                found += list(self.value(node.value))
            else:
                found.append(self.value(node))
        return found

    def _binop(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.Pow):
            small = all(
                isinstance(side, self.mx.array) or abs(side) <= 4096 for side in (left, right)
            )
            if not small or (type(right) is int and abs(right) > 16):
                raise NotEvaluable("a power is too large")
            return left**right
        lists = [side for side in (left, right) if isinstance(side, list | tuple)]
        if lists and isinstance(node.op, ast.Mult):
            counts = [side for side in (left, right) if type(side) is int]
            if len(counts) != 1 or not 0 <= counts[0] <= 32:
                raise NotEvaluable("a list is too long")
        function = _BINARY.get(type(node.op))
        if function is None:
            raise NotEvaluable(type(node.op).__name__)
        return function(left, right)

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        of = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            return not of
        if isinstance(node.op, ast.Invert):
            return self.mx.logical_not(of) if isinstance(of, self.mx.array) else ~of
        return -of if isinstance(node.op, ast.USub) else of

    def _compare(self, node: ast.Compare) -> Any:
        left = self.value(node.left)
        result: Any = True
        for kind, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.value(right_node)
            if isinstance(kind, ast.In | ast.NotIn):
                return (left in right) == isinstance(kind, ast.In)
            result = _COMPARE[type(kind)](left, right)
            left = right
        return result

    def _boolop(self, node: ast.BoolOp) -> Any:
        value: Any = None
        for part in node.values:
            value = self.value(part)
            if isinstance(value, self.mx.array):
                raise NotEvaluable("an array decides")
            if bool(value) != isinstance(node.op, ast.And):
                return value
        return value

    def _truth(self, test: ast.expr) -> bool:
        value = self.value(test)
        if isinstance(value, self.mx.array):
            if value.size > 1:
                raise ValueError("an array of several elements can't decide")
            raise NotEvaluable("an array decides")
        return bool(value)

    def _ifexp(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self._truth(node.test) else node.orelse)


class Limits:
    """The limits of a type, as numbers."""

    def __init__(self, of: Any) -> None:
        self.min = float(of.min)
        self.max = float(of.max)
        self.eps = float(of.eps) if hasattr(of, "eps") else 0.0


class Reached(Exception):
    """The result that is asked for."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Returned(Exception):
    """What a function returns."""

    def __init__(self, value: Any) -> None:
        self.value = value
