"""What a function does with scores: scales, casts, masks, a softmax, or what no fused call does."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Sequence

from flash_codemods.handwritten.operations import (
    NUMPY_FLOATS,
    Operation,
    integer,
)
from flash_codemods.handwritten.reading.axes import shaped
from flash_codemods.handwritten.reading.numbers import python_number
from flash_codemods.handwritten.reading.products import Products
from flash_codemods.handwritten.reading.state import short
from flash_codemods.handwritten.values import (
    Array,
    Choice,
    Factor,
    Lost,
    Mask,
    Other,
    Scores,
    Step,
    Value,
    Weights,
)

_LARGE = 1e3


class ScoreSteps(Products):
    """Follows scores from their product to their softmax."""

    def _on_scores(
        self,
        node: ast.expr,
        operator: ast.operator,
        first: ast.expr,
        second: ast.expr,
        left: Value,
        right: Value,
    ) -> Value:
        """Scores that something is added to, or that are multiplied."""
        tainted = [side for side in (left, right) if isinstance(side, Scores | Weights | Lost)]
        if len(tainted) == 2:
            return self._lose(tainted[0], node, "are combined with another product of the queries")
        of = tainted[0]
        other, value = (second, right) if of is left else (first, left)
        if isinstance(of, Lost):
            return of
        if isinstance(of, Weights):
            return self._lose(of, node, f"are multiplied or shifted by `{short(other)}`")
        if isinstance(value, Array) and value.product is not None:
            return self._lose(of, node, "are combined with another product of the queries")
        if isinstance(operator, ast.Add):
            return self._step(of, Mask(node, self.statement, self.bindings(other), bias=other))
        if isinstance(operator, ast.Sub) and of is left:
            return self._lose(of, node, f"have `{short(other)}` subtracted, where a mask is added")
        divides = isinstance(operator, ast.Div)
        if not isinstance(operator, ast.Mult | ast.Div) or (divides and of is right):
            return self._lose(of, node, f"meet `{short(other)}` in a way that no mask does")
        number = python_number(other, self.names, self.env, self._is_number)
        if number is None:
            return self._lose(of, node, f"are scaled by `{short(other)}`, not known to be a number")
        if of.steps:
            return self._lose(of, node, "are scaled after they were masked")
        text = "" if number is other else ast.unparse(number)
        factor = Factor(other, divides, self.bindings(other, number), text)
        return dataclasses.replace(of, factors=(*of.factors, factor))

    def _operation_on_scores(
        self,
        node: ast.Call,
        operation: Operation,
        values: list[Value],
        tainted: list[Scores | Weights | Lost],
    ) -> Value:
        of, name = tainted[0], operation.name
        if isinstance(of, Lost):
            return self._softmax_of_lost(of) if name == "softmax" else of
        if isinstance(of, Scores) and values[0] is of and name in ("reshape", "unflatten", "split"):
            # Before a softmax it may have been a projection: `(x @ w.T).reshape(...)`.
            self._learn_numbers(operation)
            lost = self._lose(of, node, f"go through `{name}`")
            made = shaped(operation, [Array(self.rank_of(of))])
            return self._as_projection(of, made, lost)
        if len(tainted) > 1 and name not in ("where",):
            return self._lose(of, node, "are combined with another product of the queries")
        if name == "astype":
            return self._cast(node, of, operation)
        if name == "softmax":
            return self._softmax(node, of, operation)
        if name == "where" and isinstance(of, Scores):
            return self._where(node, of, operation, values)
        if name in ("multiply", "divide", "add") and len(operation.arguments) == 2:
            operator = {"multiply": ast.Mult(), "divide": ast.Div(), "add": ast.Add()}[name]
            return self._on_scores(node, operator, *operation.arguments, values[0], values[1])
        if name in ("tril", "triu"):
            reason = f"go through `{name}`, which leaves zeros where a mask has minus infinity"
            return self._lose(of, node, reason)
        if name == "tanh":
            return self._lose(of, node, "are capped by `tanh`, which MLX's own function can't say")
        return self._lose(of, node, f"go through `{name}`")

    def _as_projection(self, of: Scores, made: Value, lost: Lost) -> Value:
        """What was made of scores, as an array; `lost` says why a softmax of it is no attention
        that is known."""
        self.no_keys[of.product] = dataclasses.replace(lost, is_weights=True)
        return with_product(made, of.product)

    def _softmax_of_lost(self, of: Lost) -> Lost:
        return dataclasses.replace(of, is_weights=True)

    def _cast(self, node: ast.Call, of: Scores | Weights, operation: Operation) -> Value:
        to = operation.argument(1, "dtype")
        if to is None:
            return self._lose(of, node, "are cast to nothing")
        if isinstance(of, Weights):
            names = self.bindings(to)
            return dataclasses.replace(of, cast=to, cast_names=names)
        widens = self.names.full(to) == "mlx.core.float32"
        if not widens and not (isinstance(to, ast.Attribute) and to.attr == "dtype"):
            return self._lose(of, node, f"are cast to `{short(to)}` before the softmax")
        return dataclasses.replace(of, widened=of.widened or widens)

    def _softmax(self, node: ast.Call, of: Scores | Weights, operation: Operation) -> Value:
        if isinstance(of, Weights):
            return self._lose(of, node, "go through a second softmax")
        axis = integer(operation.argument(1, "axis") or operation.keywords.get("axes"))
        if axis != -1 and axis != (self.rank_of(of) or 0) - 1:
            lost = self._lose(of, node, "go through a softmax over another axis than the last")
            return dataclasses.replace(lost, is_weights=True)
        return Weights(of, node)

    def _where(
        self, node: ast.Call, of: Scores, operation: Operation, values: list[Value]
    ) -> Value:
        if len(operation.arguments) != 3 or values[0] is of:
            return self._lose(of, node, "are chosen from in a way that no mask does")
        condition, one, other = operation.arguments
        inverted = values[2] is of
        fill = one if inverted else other
        if all(isinstance(value, Scores | Weights | Lost) for value in values[1:]):
            return self._lose(of, node, "are chosen from in a way that no mask does")
        if not self._hides(fill):
            known = "not" if isinstance(fill, ast.Constant) else "not known to be"
            reason = f"are set to `{short(fill)}`, {known} minus infinity, where the mask hides it"
            return self._lose(of, node, reason)
        return self._step(
            of,
            Mask(
                node,
                self.statement,
                self.bindings(condition),
                seen=condition,
                inverted=inverted,
                fill=fill,
            ),
        )

    def _hides(self, node: ast.expr) -> bool:
        """Whether a value is minus infinity, or as good as that."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            inner = node.operand
            if isinstance(inner, ast.Constant) and is_plain_number(inner):
                return abs(float(str(inner.value))) >= _LARGE
            return self._is_infinity(inner, "inf")
        if isinstance(node, ast.Attribute) and node.attr == "min":
            called = node.value.func if isinstance(node.value, ast.Call) else None
            return isinstance(called, ast.Attribute) and called.attr == "finfo"
        if isinstance(node, ast.Name):
            binding = self.env.get(node.id)
            made = getattr(binding.statement, "value", None) if binding else None
            made = made or self.constants.get(node.id)
            return (
                isinstance(made, ast.expr) and not isinstance(made, ast.Name) and self._hides(made)
            )
        if isinstance(node, ast.Call):
            operation = self.names.operation(node)
            if operation is not None and operation.name == "array" and operation.arguments:
                return self._hides(operation.arguments[0])
            if operation is not None and operation.name == "full":
                filling = operation.argument(1, "vals")
                return filling is not None and self._hides(filling)
            name = getattr(node.func, "id", "")
            if name in self.functions and name not in self.env and self.depth < 2:
                function = self.of_function(self.functions[name])
                return [function._hides(given) for given, _ in function.returned_nodes] == [True]
            return self._is_infinity(node, "-inf")
        return False

    def of_function(self, function: ast.FunctionDef, given: Sequence[Value] = ()) -> ScoreSteps:
        """A reader that has read a function of the file; what reads statements has it."""
        raise NotImplementedError

    def _is_infinity(self, node: ast.expr, word: str) -> bool:
        if isinstance(node, ast.Call) and self.names.full(node.func) in NUMPY_FLOATS and node.args:
            return self._is_infinity(node.args[0], word)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            given = node.args[0] if node.func.id == "float" and node.args else None
            if not isinstance(given, ast.Constant):
                return self._hides(given) if given is not None else False
            text = str(given.value).lower()
            return text in (word, word.replace("inf", "infinity")) or _large_negative(text)
        return isinstance(node, ast.Attribute) and node.attr == "inf" and word == "inf"

    def _step(self, of: Scores, step: Step) -> Scores:
        return dataclasses.replace(of, steps=(*of.steps, step))

    def meet(self, one: Value, other: Value, node: ast.If | ast.IfExp) -> Value:
        """What is known of a value that is one or the other, as the test of `node` says."""
        if one == other:
            return one
        for of in (one, other):
            if isinstance(of, Lost):
                return of
        if isinstance(one, Scores) and isinstance(other, Scores):
            return self._meet_scores(one, other, node)
        for of, rest in ((one, other), (other, one)):
            product = rest.product if isinstance(rest, Array) else None
            if isinstance(of, Scores) and product is of.product and product in self.no_keys:
                return dataclasses.replace(self.no_keys[product], is_weights=False)
            if isinstance(of, Weights | Scores):
                return self._lose(of, node, "are made in one branch and not in the other")
        if isinstance(one, Array) and isinstance(other, Array):
            same = one.rank == other.rank
            return Array(
                one.rank if same else None,
                one.transposed and other.transposed,
                one.single and other.single,
                one.product or other.product,
            )
        return Array() if isinstance(one, Array) or isinstance(other, Array) else Other()

    def _meet_scores(self, one: Scores, other: Scores, node: ast.If | ast.IfExp) -> Value:
        if one.product is not other.product or one.factors != other.factors:
            return self._lose(one, node, "are made in two ways")
        common = 0
        for step, second in zip(one.steps, other.steps, strict=False):
            if step is not second:
                break
            common += 1
        then, otherwise = one.steps[common:], other.steps[common:]
        widened = one.widened and other.widened
        steps = one.steps[:common]
        if then or otherwise:
            choice = Choice(node.test, self.statement, node, then, otherwise)
            steps = (*steps, choice)
        return dataclasses.replace(one, steps=steps, widened=widened)


def with_product(of: Value, product: ast.expr | None) -> Value:
    return dataclasses.replace(of, product=product) if isinstance(of, Array) else of


def is_plain_number(node: ast.Constant) -> bool:
    return type(node.value) in (int, float)


def _large_negative(text: str) -> bool:
    try:
        return float(text) <= -_LARGE
    except ValueError:
        return False
