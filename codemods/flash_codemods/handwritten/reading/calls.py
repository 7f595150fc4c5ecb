"""Calls: of MLX's operations, of functions of the file, of anything else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from flash_codemods.handwritten.operations import (
    Operation,
)
from flash_codemods.handwritten.reading.axes import shaped
from flash_codemods.handwritten.reading.classes import self_attribute
from flash_codemods.handwritten.reading.scores import ScoreSteps, with_product
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

# Of what is called by these names (`self.rope(q)`, `self.q_norm(q)`, `apply_rotary(q, k)`,
# `cache.update_and_fetch(k, v)`) an array comes back with its axes where they were.
_KEEPS_AXES = re.compile(
    r"rope|rot|norm|(^|_)ln|proj|linear|query|key|value|cache|update|fetch|repeat|quant|dropout|"
    r"(^|_)pos|embed|^w?_?[qkvo]w?s?$|^to_[qkv]|^w[qkvo]$|^[qkv]_"
)


class Calls(ScoreSteps):
    """What a call gives."""

    def _call(self, node: ast.Call) -> Value:
        operation = self.names.operation(node)
        if operation is None:
            return self._unknown_call(node)
        if operation.name in ("matmul", "einsum"):
            return self._product_call(node, operation)
        if operation.name == "addmm":
            return self.added_product(node)
        values = [self.value(argument) for argument in operation.arguments]
        for keyword in operation.keywords.values():
            self.value(keyword)
        tainted = [of for of in values if isinstance(of, Scores | Weights | Lost)]
        for of in values:
            if isinstance(of, Items):
                tainted += [it for it in of.values if isinstance(it, Scores | Weights | Lost)]
        if tainted:
            return self._operation_on_scores(node, operation, values, tainted)
        made, product = shaped(operation, values), _product_in(values)
        if product is None:
            self._learn_numbers(operation)
            return made
        return self.no_keys[product] if operation.name == "softmax" else with_product(made, product)

    def _product_call(self, node: ast.Call, operation: Operation) -> Value:
        arguments = operation.arguments
        if operation.name == "matmul" and len(arguments) == 2:
            return self.product(node, *arguments)
        if operation.name == "einsum" and len(arguments) == 3:
            text = arguments[0].value if isinstance(arguments[0], ast.Constant) else None
            return self.product(node, arguments[1], arguments[2], str(text))
        return self._children(node)

    def _unknown_call(self, node: ast.Call) -> Value:
        called = ast.unparse(node.func) if not isinstance(node.func, ast.Lambda) else "a lambda"
        self._children(node.func)
        values = [self.value(argument) for argument in node.args]
        values += [self.value(item.value) for item in node.keywords]
        for of in values:
            if isinstance(of, Weights) and self._drops_nothing(node.func):
                return of
            if isinstance(of, Scores):
                return self._of_projection(of, node, values, called)
            if isinstance(of, Weights | Lost):
                return self._lose_to_call(of, node, called)
            if isinstance(of, Items):
                for item in of.values:
                    if isinstance(item, Scores | Weights | Lost):
                        return self._lose_to_call(item, node, called)
        if called in ("int", "float", "len", "max", "min", "abs", "round") or (
            self.names.full(node.func) or ""
        ).startswith("math."):
            arrays = any(not isinstance(of, Number | Shape | Other) for of in values)
            return Other() if arrays and called in ("max", "min", "abs", "round") else Number()
        if called in ("tuple", "list") and len(values) == 1:
            return values[0]
        return self._result_of(node, values)

    def _of_projection(self, of: Scores, node: ast.Call, values: list[Value], called: str) -> Value:
        """What a function makes of what looked like scores, and may have been a projection."""
        lost = self._lose_to_call(of, node, called)
        plain = Array(self.rank_of(of))
        result = self._result_of(node, [plain if value is of else value for value in values])
        if not isinstance(result, Array) or not isinstance(lost, Lost):
            return lost
        return self._as_projection(of, result, lost)

    def _drops_nothing(self, called: ast.expr) -> bool:
        name = self_attribute(called)
        return name is not None and self.owner.drops_nothing(name)

    def _lose_to_call(self, of: Scores | Weights | Lost, node: ast.Call, called: str) -> Value:
        name = self_attribute(node.func)
        dropout = "drop" in called.lower() or (name is not None and self.owner.is_dropout(name))
        if dropout and not isinstance(of, Lost):
            return self._lose(of, node, f"go through the dropout `{called}`")
        return self._lose(of, node, f"go through `{called}`")

    def _result_of(self, node: ast.Call, values: list[Value]) -> Value:
        """The axes of what a function of the file returns, or one whose name says that it leaves
        them alone."""
        function = self._function(node.func)
        if function is not None and self.depth < 2:
            given = values
            if isinstance(node.func, ast.Attribute) and not _is_static(function):
                given = [Other(), *values]
            return self.returned(function, given)
        if isinstance(node.func, ast.Name) and node.func.id == "map" and len(node.args) == 2:
            return self._mapped(node, values)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else name
        arrays = [of for of in values if isinstance(of, Array)]
        if not arrays or not _KEEPS_AXES.search(name.lower()):
            return Array() if arrays else Other()
        return arrays[0] if len(arrays) == 1 else Items(tuple(arrays))

    def _mapped(self, node: ast.Call, values: list[Value]) -> Value:
        items = values[1].values if isinstance(values[1], Items) else ()
        function = self._function(node.args[0])
        if function is None:
            return Items(tuple(Array() for _ in items))
        return Items(tuple(self.returned(function, [item]) for item in items))

    def _function(self, called: ast.expr) -> ast.FunctionDef | None:
        if isinstance(called, ast.Name):
            return self.functions.get(called.id)
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            return self.owner.methods.get(called.attr)
        return None

    def returned(self, function: ast.FunctionDef, given: list[Value]) -> Value:
        raise NotImplementedError


def _product_in(values: Iterable[Value]) -> ast.expr | None:
    """The product of two arrays that one of some values is made of."""
    for value in values:
        inner = _product_in(value.values) if isinstance(value, Items) else None
        product = value.product if isinstance(value, Array) else inner
        if product is not None:
            return product
    return None


def _is_static(function: ast.FunctionDef) -> bool:
    return any(getattr(item, "id", "") == "staticmethod" for item in function.decorator_list)
