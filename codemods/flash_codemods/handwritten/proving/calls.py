"""The value of a call: of an operation of MLX, of a few of Python's own functions, of a function of
the file; of anything else what it was given."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from typing import Any

from flash_codemods.handwritten.operations import ARRAY_METHODS, CORE, LAYERS, NUMPY_FLOATS
from flash_codemods.handwritten.proving.expressions import Expressions, Limits, Returned
from flash_codemods.handwritten.proving.missing import NotEvaluable, text_of

_OPERATIONS = {
    "abs", "add", "all", "any", "arange", "array", "broadcast_to", "clip", "concatenate",
    "contiguous", "divide", "einsum", "equal", "exp", "expand_dims", "eye", "flatten", "full",
    "greater", "greater_equal", "isnan", "less", "less_equal", "linspace", "logical_and",
    "logical_not", "logical_or", "matmul", "maximum", "minimum", "moveaxis", "multiply",
    "negative", "not_equal", "ones", "ones_like", "outer", "repeat", "reshape", "rsqrt",
    "softmax", "split", "sqrt", "squeeze", "stack", "stop_gradient", "subtract", "swapaxes",
    "tanh", "tile", "transpose", "tril", "triu", "unflatten", "where", "zeros", "zeros_like",
}  # fmt: skip
_METHODS = ARRAY_METHODS | {"sum", "max", "min", "item", "square", "abs", "sqrt", "exp"}


class Calls(Expressions):
    """Makes the calls that are evaluated here, and no other."""

    def _call(self, node: ast.Call) -> Any:
        full = self.names.full(node.func)
        if full is not None and _is_known(full):
            return self._module_call(full, node)
        if full is not None:
            return self._stand_in(node, 1)
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
            return Limits(self.mx.finfo(_narrow(arguments[0], self.mx)))
        if full in NUMPY_FLOATS:
            return float(*arguments)
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
                return self._own_function(self.functions[name], *self._arguments(node))
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
            self._own_function(self.functions[function], [item], {})
            for item in self.value(node.args[1])
        ]

    def _own_function(
        self, function: ast.FunctionDef, arguments: list[Any], keywords: dict[str, Any]
    ) -> Any:
        """A function of the file that does array expressions alone, read in turn."""
        inner = type(self)(self.mx, self.names, self.inputs, self.types)
        inner.env, inner.ran = dict(self.env), self.ran
        inner._steps = self._steps
        parameters = [item.arg for item in function.args.args]
        given = dict(zip(parameters, arguments, strict=False)) | keywords
        if len(arguments) + len(keywords) != len(parameters) or given.keys() != set(parameters):
            raise NotEvaluable("another number of arguments")
        inner.env |= given
        try:
            inner._suite(function.body)
        except Returned as returned:
            return returned.value
        raise NotEvaluable("a function without a result")

    def _method(self, called: ast.Attribute, node: ast.Call) -> Any:
        of = self.value(called.value)
        if isinstance(of, int | float):
            raise NotEvaluable("a method of a number")
        if not isinstance(of, self.mx.array) or called.attr not in _METHODS:
            return self._stand_in(node, 1)
        arguments, keywords = self._arguments(node)
        return getattr(of, called.attr)(*arguments, **keywords)

    def _is_foreign(self, node: ast.Call) -> bool:
        """Whether a call is of something that is not evaluated here: a layer, a cache, a function
        of another file."""
        full = self.names.full(node.func)
        if full is not None:
            return not _is_known(full)
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


def _is_known(full: str) -> bool:
    """Whether it belongs to a module of which some functions are evaluated here."""
    return full.partition(".")[0] in ("mlx", "numpy", "math")


def _narrow(dtype: Any, mx: Any) -> Any:
    """float64 stands in for float32, whose limits are meant."""
    return mx.float32 if dtype == mx.float64 else dtype
