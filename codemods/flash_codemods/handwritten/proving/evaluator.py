"""Evaluates the array expressions of a function, and nothing else of the file that holds it.

A name stands for an operation of MLX that is listed here, for an array or number of our own
choice, or for nothing: no module is imported, no function of the file's is called but those that
are read here in turn. Arrays and numbers that grow out of all proportion end the evaluation.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from flash_codemods.handwritten.operations import ARRAY_METHODS, CORE, LAYERS, Names

_OPERATIONS = {
    "abs", "add", "arange", "array", "broadcast_to", "clip", "concatenate", "contiguous",
    "divide", "einsum", "equal", "exp", "expand_dims", "eye", "flatten", "full", "greater",
    "greater_equal", "isnan", "less", "less_equal", "linspace", "logical_and", "logical_not",
    "logical_or", "matmul", "maximum", "minimum", "moveaxis", "multiply", "negative", "not_equal",
    "ones", "ones_like", "outer", "repeat", "reshape", "rsqrt", "softmax", "split", "sqrt",
    "squeeze", "stack", "stop_gradient", "subtract", "swapaxes", "tanh", "tile", "transpose",
    "tril", "triu",
    "unflatten", "where", "zeros", "zeros_like",
}  # fmt: skip
_TYPES = {"float16", "bfloat16", "float32", "bool_", "int8", "int32", "int64", "uint8", "uint32"}
_METHODS = ARRAY_METHODS | {"sum", "max", "min", "item", "square", "abs", "sqrt", "exp"}
# Axes and scale: what leaves an array the one that it was.
_TRANSPARENT = {"transpose", "swapaxes", "moveaxis", "astype", "repeat", "expand_dims"}
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
_LARGEST_ARRAY = 1 << 20
_LARGEST_NUMBER = 1 << 40


@lru_cache(maxsize=1 << 12)
def text_of(node: ast.expr) -> str:
    """The text of an expression, written out once for the many times that it is evaluated."""
    return ast.unparse(node)


class NotEvaluable(Exception):
    """An expression that is not one of those that are evaluated here."""


class Missing(Exception):
    """Something that the function does not make itself: an array, a number, a choice. `key` is its
    text."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class _Reached(Exception):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class Evaluator:
    """Runs statements until the expression `target` has a value.

    `inputs` are what stands in for the rest of the program, by its text; `types` in what type the
    floats of the function are taken, by MLX's name.
    """

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

    def run(self, suite: list[ast.stmt], target: ast.expr) -> Any:
        """The value of `target`, which one of the statements holds.

        Raises:
            Missing: an input is not there yet.
            NotEvaluable: there is something that is not evaluated here.
        """
        self.target = target
        try:
            self._suite(suite)
        except _Reached as reached:
            return reached.value
        raise NotEvaluable("the result is not reached")

    # Statements

    def _suite(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self._steps += 1
            if self._steps > 2000:
                raise NotEvaluable("too many steps")
            self.ran.add(statement.lineno)
            self._statement(statement)

    def _statement(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign):
            value = self._assigned(statement)
            for target in statement.targets:
                self._bind(target, value)
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            self._bind(statement.target, self.value(statement.value))
        elif isinstance(statement, ast.AugAssign):
            self._augment(statement)
        elif isinstance(statement, ast.If):
            self._suite(statement.body if self._truth(statement.test) else statement.orelse)
        elif isinstance(statement, ast.FunctionDef):
            self.functions[statement.name] = statement
        elif isinstance(statement, ast.Return | ast.Expr):
            if statement.value is not None:
                self.value(statement.value)
        elif isinstance(statement, ast.Raise):
            raise NotEvaluable("an error is raised")
        elif not isinstance(statement, ast.Pass | ast.Assert):
            raise NotEvaluable(type(statement).__name__)

    def _assigned(self, statement: ast.Assign) -> Any:
        """The value of an assignment; one that is not evaluable, and leads nowhere, is none."""
        count = 1
        target = statement.targets[0]
        if isinstance(target, ast.Tuple):
            count = len(target.elts)
        if isinstance(statement.value, ast.Call) and self._is_foreign(statement.value):
            return self._stand_in(statement.value, count)
        return self.value(statement.value)

    def _bind(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.env[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            values = list(value)
            if len(values) != len(target.elts):
                raise NotEvaluable("unpacks another number of values")
            for item, part in zip(target.elts, values, strict=True):
                self._bind(item, part)
        elif not isinstance(target, ast.Attribute | ast.Subscript):
            raise NotEvaluable("binds something else than a name")

    def _augment(self, statement: ast.AugAssign) -> None:
        if not isinstance(statement.target, ast.Name):
            raise NotEvaluable("changes a part of something")
        before = ast.copy_location(ast.Name(statement.target.id, ast.Load()), statement.target)
        whole = ast.copy_location(ast.BinOp(before, statement.op, statement.value), statement)
        self.env[statement.target.id] = self.value(whole)

    def _truth(self, test: ast.expr) -> bool:
        value = self.value(test)
        if isinstance(value, self.mx.array):
            raise NotEvaluable("an array decides")
        return bool(value)

    # Expressions

    def value(self, node: ast.expr) -> Any:
        cut = self._cut(node) if isinstance(node, ast.Call) else None
        if cut is not None:
            value = self._input(cut)
        else:
            method = getattr(self, f"_{type(node).__name__.lower()}", None)
            if method is None:
                raise NotEvaluable(type(node).__name__)
            value = self._checked(method(node))
        if node is self.target:
            raise _Reached(value)
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
        unknown = isinstance(base, ast.Name) and base.id not in self.env
        return text_of(node) if foreign or unknown else None

    def _input(self, key: str) -> Any:
        if key not in self.inputs:
            raise Missing(key)
        return self.inputs[key]

    def _checked(self, value: Any) -> Any:
        if isinstance(value, self.mx.array) and value.size > _LARGEST_ARRAY:
            raise NotEvaluable("an array is too large")
        if type(value) is int and abs(value) > _LARGEST_NUMBER:
            raise NotEvaluable("a number is too large")
        if isinstance(value, list | tuple) and len(value) > 64:
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
        if isinstance(of, _Finfo) and node.attr in ("min", "max", "eps"):
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

    def _ifexp(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self._truth(node.test) else node.orelse)

    # Calls

    def _call(self, node: ast.Call) -> Any:
        full = self.names.full(node.func)
        if full is not None:
            return self._module_call(full, node)
        if isinstance(node.func, ast.Name):
            return self._named_call(node.func.id, node)
        if isinstance(node.func, ast.Attribute) and not self._is_foreign(node):
            return self._method(node.func, node)
        return self._stand_in(node, 1)

    def _arguments(self, node: ast.Call) -> tuple[list[Any], dict[str, Any]]:
        keywords = {item.arg: self.value(item.value) for item in node.keywords if item.arg}
        return self._items(node.args), keywords

    def _module_call(self, full: str, node: ast.Call) -> Any:
        module, _, name = full.rpartition(".")
        arguments, keywords = self._arguments(node)
        if module == CORE and name == "finfo":
            return _Finfo(self.mx.finfo(_narrow(arguments[0], self.mx)))
        if module == CORE and name in _OPERATIONS:
            return getattr(self.mx, name)(*arguments, **keywords)
        if full == f"{CORE}.fast.scaled_dot_product_attention":
            return self.mx.fast.scaled_dot_product_attention(*arguments, **keywords)
        if full == f"{LAYERS}.softmax":
            return self.mx.softmax(*arguments, **keywords)
        if full.endswith("create_additive_causal_mask") and module.startswith(LAYERS):
            return self._causal(*arguments, **keywords)
        if module == "math" and name in ("sqrt", "log", "log2", "exp", "pow", "ceil", "floor"):
            return getattr(math, name)(*arguments)
        raise NotEvaluable(full)

    def _causal(self, length: int, dtype: Any = None) -> Any:
        """As `nn.MultiHeadAttention.create_additive_causal_mask` makes it."""
        dtype = dtype or self.mx.float32
        positions = self.mx.arange(length)
        mask = positions[:, None] < positions[None]
        return mask.astype(dtype) * self.mx.finfo(_narrow(dtype, self.mx)).min

    def _named_call(self, name: str, node: ast.Call) -> Any:
        if name in self.env or name in self.inputs:
            return self._stand_in(node, 1)
        if name in ("float", "int", "len", "max", "min", "abs", "tuple", "list", "isinstance"):
            arguments, _ = self._arguments_of_builtin(name, node)
            kinds: dict[str, Callable[..., Any]] = {
                "float": float, "int": int, "len": len, "max": max, "min": min, "abs": abs,
                "tuple": tuple, "list": list,
            }  # fmt: skip
            if name == "isinstance":
                return self._isinstance(node)
            return kinds[name](*arguments)
        if name == "map":
            return self._map(node)
        if name in self.functions:
            try:
                return self._own_function(self.functions[name], self._items(node.args))
            except NotEvaluable:
                return self._input(text_of(node))
        return self._stand_in(node, 1)

    def _arguments_of_builtin(self, name: str, node: ast.Call) -> tuple[list[Any], None]:
        return ([] if name == "isinstance" else self._items(node.args)), None

    def _isinstance(self, node: ast.Call) -> bool:
        kind = text_of(node.args[1])
        of = self.value(node.args[0])
        if kind == "str":
            return isinstance(of, str)
        if self.names.full(node.args[1]) == f"{CORE}.array":
            return isinstance(of, self.mx.array)
        raise NotEvaluable("asks for a class")

    def _map(self, node: ast.Call) -> Any:
        function = getattr(node.args[0], "id", "")
        if function not in self.functions:
            raise NotEvaluable("maps a function of another file")
        return [
            self._own_function(self.functions[function], [item])
            for item in self.value(node.args[1])
        ]

    def _own_function(self, function: ast.FunctionDef, arguments: list[Any]) -> Any:
        """A function of the file that does array expressions alone, read in turn."""
        inner = Evaluator(self.mx, self.names, self.inputs, self.types)
        inner.env = dict(self.env)
        inner._steps = self._steps
        if len(function.args.args) != len(arguments):
            raise NotEvaluable("another number of arguments")
        for item, value in zip(function.args.args, arguments, strict=True):
            inner.env[item.arg] = value
        for statement in function.body:
            if isinstance(statement, ast.Return) and statement.value is not None:
                return inner.value(statement.value)
            inner._suite([statement])
        raise NotEvaluable("a function without a result")

    def _method(self, called: ast.Attribute, node: ast.Call) -> Any:
        of = self.value(called.value)
        if not isinstance(of, self.mx.array) or called.attr not in _METHODS:
            return self._stand_in(node, 1)
        arguments, keywords = self._arguments(node)
        return getattr(of, called.attr)(*arguments, **keywords)

    def _is_foreign(self, node: ast.Call) -> bool:
        """Whether a call is of something that is not evaluated here: a layer, a cache, a function
        of another file."""
        if self.names.full(node.func) is not None:
            return False
        if isinstance(node.func, ast.Attribute):
            if node.func.attr not in _METHODS:
                return True
            base: ast.expr = node.func.value
            return isinstance(base, ast.Name) and base.id == "self"
        return not isinstance(node.func, ast.Name)

    def _stand_in(self, node: ast.Call, count: int) -> Any:
        """What a call of something else gives: the arrays that it was given, or an input of its
        own where it was given none."""
        text = text_of(node)
        if text in self.inputs:
            return self.inputs[text]
        arrays = []
        for argument in node.args:
            value = None if isinstance(argument, ast.Starred) else self.value(argument)
            if isinstance(value, self.mx.array):
                arrays.append(value)
        if not arrays or len(arrays) < count:
            return self._input(text)
        return arrays[0] if count == 1 else tuple(arrays[:count])


class _Finfo:
    """The limits of a type, as numbers."""

    def __init__(self, of: Any) -> None:
        self.min = float(of.min)
        self.max = float(of.max)
        self.eps = float(of.eps) if hasattr(of, "eps") else 0.0


def _narrow(dtype: Any, mx: Any) -> Any:
    """float64 stands in for float32, whose limits are meant."""
    return mx.float32 if dtype == mx.float64 else dtype
