"""What an expression is, by what it is made of: an array of so many axes, scores, weights."""

from __future__ import annotations

import ast
import dataclasses
import re

from flash_codemods.handwritten.axes import indexed, shaped
from flash_codemods.handwritten.classes import SCALE, ClassFacts, self_attribute
from flash_codemods.handwritten.numbers import python_number
from flash_codemods.handwritten.operations import (
    Names,
    Operation,
    integer,
    permutation,
    swaps_last_two,
)
from flash_codemods.handwritten.products import attention_layout, weighted_layout
from flash_codemods.handwritten.values import (
    Array,
    Binding,
    Choice,
    Factor,
    Found,
    Items,
    Lost,
    Mask,
    Number,
    Other,
    Refused,
    Scores,
    Shape,
    Step,
    Value,
    Weights,
)

# Of what is called by these names (`self.rope(q)`, `self.q_norm(q)`, `apply_rotary(q, k)`,
# `cache.update_and_fetch(k, v)`) an array comes back with its axes where they were.
_KEEPS_AXES = re.compile(
    r"rope|rot|norm|(^|_)ln|proj|linear|query|key|value|cache|update|fetch|repeat|quant|dropout|"
    r"(^|_)pos|embed|^w?_?[qkvo]w?s?$|^to_[qkv]|^w[qkvo]$|^[qkv]_"
)
_SETTINGS = re.compile(r"^_?(model_)?(config|cfg|args|hparams)$")
_LARGE = 1e3


class Expressions:
    """Reads expressions in an environment of bindings; what is attention among them is kept in
    `found`, what is nearly so in `refused`."""

    def __init__(
        self, names: Names, owner: ClassFacts, constants: dict[str, ast.expr], depth: int = 0
    ) -> None:
        self.names = names
        self.owner = owner
        self.constants = constants
        self.depth = depth
        self.env: dict[str, Binding] = {}
        self.functions: dict[str, ast.FunctionDef] = {}
        self.found: list[Found] = []
        self.refused: list[Refused] = []
        self.sizes: set[str] = set()
        """Names from outside the function by which it gives arrays a shape: they are numbers."""
        self.statement: ast.stmt = ast.Pass(lineno=0, col_offset=0)
        self.loop: ast.stmt | None = None
        self.no_keys: dict[ast.expr, Lost] = {}
        """Products of which a softmax makes no weights that are known, and why."""

    def value(self, node: ast.expr) -> Value:
        """What an expression is."""
        method = getattr(self, f"_{type(node).__name__.lower()}", self._anything)
        value: Value = method(node)
        return value

    def bindings(self, *nodes: ast.AST) -> dict[str, Binding]:
        """What the names in expressions stand for here."""
        return {
            part.id: self.env[part.id]
            for node in nodes
            for part in ast.walk(node)
            if isinstance(part, ast.Name) and part.id in self.env
        }

    # Names and their parts

    def _name(self, node: ast.Name) -> Value:
        if (binding := self.env.get(node.id)) is not None:
            binding.used(node)
            return binding.value
        if node.id in self.sizes:
            return Number()
        constant = self.constants.get(node.id)
        return Number() if isinstance(constant, ast.Constant) and _is_number(constant) else Other()

    def _constant(self, node: ast.Constant) -> Value:
        return Number() if _is_number(node) else Other()

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
        if SCALE.match(node.attr) or self._is_setting(node):
            return Number()
        if node.attr == "T" and isinstance(of, Array):
            return dataclasses.replace(of, transposed=True, single=False)
        return Array() if node.attr in ("real", "imag") else Other()

    def _is_setting(self, node: ast.Attribute) -> bool:
        """`config.head_dim`, or `self.config.head_dim`: no array, whatever else it is."""
        of = node.value
        name = of.attr if isinstance(of, ast.Attribute) else getattr(of, "id", "")
        return _SETTINGS.match(name) is not None

    def _subscript(self, node: ast.Subscript) -> Value:
        of = self.value(node.value)
        self._children(node.slice)
        if isinstance(of, Shape):
            return Shape() if isinstance(node.slice, ast.Slice) else Number()
        if isinstance(of, Scores | Weights | Lost):
            return self._lose(of, node, "are taken apart")
        if isinstance(of, Items) and (index := integer(node.slice)) is not None:
            return of.values[index] if -len(of.values) <= index < len(of.values) else Other()
        if not isinstance(of, Array):
            return Array()
        return indexed(of, node.slice)

    # Arithmetic

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
            return self._lose(of, node, f"are multiplied or shifted by `{_short(other)}`")
        if isinstance(value, Array) and value.product is not None:
            return self._lose(of, node, "are combined with another product of the queries")
        if isinstance(operator, ast.Add):
            return self._step(of, Mask(node, self.statement, self.bindings(other), bias=other))
        divides = isinstance(operator, ast.Div)
        if not isinstance(operator, ast.Mult | ast.Div) or (divides and of is right):
            return self._lose(of, node, f"meet `{_short(other)}` in a way that no mask does")
        number = python_number(other, self.names, self.env, self._is_number)
        if number is None:
            return self._lose(
                of, node, f"are scaled by `{_short(other)}`, not known to be a number"
            )
        if of.steps:
            return self._lose(of, node, "are scaled after they were masked")
        text = "" if number is other else ast.unparse(number)
        factor = Factor(other, divides, self.bindings(other, number), text)
        return dataclasses.replace(of, factors=(*of.factors, factor))

    def _is_number(self, node: ast.expr) -> bool:
        return isinstance(self.value(node), Number)

    def _compare(self, node: ast.Compare) -> Value:
        values = [self.value(part) for part in (node.left, *node.comparators)]
        for of in values:
            if isinstance(of, Scores | Weights | Lost):
                return self._lose(of, node, "are compared")
        ranks = [value.rank for value in values if isinstance(value, Array)]
        known = [rank for rank in ranks if rank is not None]
        return Array(max(known) if known and len(known) == len(ranks) else None)

    def _ifexp(self, node: ast.IfExp) -> Value:
        self._children(node.test)
        return self.meet(self.value(node.body), self.value(node.orelse), node)

    def _tuple(self, node: ast.Tuple) -> Value:
        return Items(tuple(self.value(item) for item in node.elts))

    def _list(self, node: ast.List) -> Value:
        return Items(tuple(self.value(item) for item in node.elts))

    def _starred(self, node: ast.Starred) -> Value:
        return self.value(node.value)

    def _anything(self, node: ast.expr) -> Value:
        return self._children(node)

    def _children(self, node: ast.AST) -> Value:
        """Marks what an expression of no interest uses; scores in it are lost."""
        result: Value = Other()
        for child in ast.iter_child_nodes(node):
            value = self.value(child) if isinstance(child, ast.expr) else self._children(child)
            if isinstance(value, Scores | Weights | Lost):
                result = self._lose(value, node, "are used in a way that is not followed")
        return result

    # Calls

    def _call(self, node: ast.Call) -> Value:
        operation = self.names.operation(node)
        if operation is None:
            return self._unknown_call(node)
        if operation.name in ("matmul", "einsum"):
            return self._product_call(node, operation)
        values = [self.value(argument) for argument in operation.arguments]
        for keyword in operation.keywords.values():
            self.value(keyword)
        tainted = [of for of in values if isinstance(of, Scores | Weights | Lost)]
        for of in values:
            if isinstance(of, Items):
                tainted += [it for it in of.values if isinstance(it, Scores | Weights | Lost)]
        if tainted:
            return self._operation_on_scores(node, operation, values, tainted)
        first = values[0] if values else None
        made = shaped(operation, values)
        if not isinstance(first, Array) or first.product is None:
            self._learn_numbers(operation)
            return made
        if operation.name == "softmax":
            return self.no_keys[first.product]
        return _with_product(made, first.product)

    def _learn_numbers(self, operation: Operation) -> None:
        if operation.name == "reshape" and len(operation.axes("shape")) > 1:
            for size in operation.axes("shape"):
                if isinstance(size, ast.Name) and size.id not in self.env:
                    self.sizes.add(size.id)

    def _product_call(self, node: ast.Call, operation: Operation) -> Value:
        arguments = operation.arguments
        if operation.name == "matmul" and len(arguments) == 2:
            return self.product(node, *arguments)
        if operation.name == "einsum" and len(arguments) == 3:
            text = arguments[0].value if isinstance(arguments[0], ast.Constant) else None
            return self.product(node, arguments[1], arguments[2], str(text))
        return self._children(node)

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
            self.no_keys[of.product] = dataclasses.replace(lost, is_weights=True)
            made = shaped(operation, [Array(self.rank_of(of))])
            return (
                dataclasses.replace(made, product=of.product) if isinstance(made, Array) else made
            )
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
            return self._lose(of, node, f"are cast to `{_short(to)}` before the softmax")
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
            reason = f"are set to `{_short(fill)}`, not minus infinity, where the mask hides it"
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
            if isinstance(inner, ast.Constant) and _is_number(inner):
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
            return self._is_infinity(node, "-inf")
        return False

    def _is_infinity(self, node: ast.expr, word: str) -> bool:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            given = node.args[0] if node.func.id == "float" and node.args else None
            if not isinstance(given, ast.Constant):
                return self._hides(given) if given is not None else False
            text = str(given.value).lower()
            return text in (word, word.replace("inf", "infinity")) or _large_negative(text)
        return isinstance(node, ast.Attribute) and node.attr == "inf" and word == "inf"

    def _step(self, of: Scores, step: Step) -> Scores:
        return dataclasses.replace(of, steps=(*of.steps, step))

    def _unknown_call(self, node: ast.Call) -> Value:
        called = ast.unparse(node.func) if not isinstance(node.func, ast.Lambda) else "a lambda"
        self._children(node.func)
        values = [self.value(argument) for argument in node.args]
        values += [self.value(item.value) for item in node.keywords]
        for of in values:
            if isinstance(of, Weights) and self._drops_nothing(node.func):
                return of
            if isinstance(of, Scores | Weights | Lost):
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

    # Products

    def product(
        self, node: ast.expr, left: ast.expr, right: ast.expr, einsum: str | None = None
    ) -> Value:
        """A product of two arrays: of queries and keys, or of weights and values."""
        one, other = self.value(left), self.value(right)
        if isinstance(other, Scores) or (isinstance(other, Lost) and not other.is_weights):
            other = Array()  # a projection that looked like scores
        if isinstance(one, Weights) and not isinstance(other, Weights | Lost):
            return self._weighted(node, one, right, other, einsum)
        for of in (one, other):
            if isinstance(of, Lost) and of.is_weights:
                self.refuse(of)
                return of
            if isinstance(of, Weights):
                return self._lose(of, node, "are multiplied by another array")
        # A product that no softmax has gone over may be a projection: `x @ w.T`.
        one = one if isinstance(one, Array) else Array()
        other = other if isinstance(other, Array) else Array()
        names = self.bindings(left, right)
        if einsum is not None:
            layout = attention_layout(einsum)
            if layout is None:
                return self._no_keys(node, "is an einsum that multiplies no queries and keys")
            return Scores(node, left, right, names, layout)
        if self._is_transposed(right, other):
            return Scores(node, left, right, names)
        return self._no_keys(node, "has a second factor that is not known to be transposed keys")

    def _no_keys(self, node: ast.expr, reason: str) -> Array:
        self.no_keys[node] = Lost(node, f"the product `{_short(node)}` {reason}", node.lineno, True)
        return Array(product=node)

    def _is_transposed(self, node: ast.expr, value: Array) -> bool:
        return value.transposed or self.swapped(node) is not None

    def swapped(self, node: ast.expr) -> ast.expr | None:
        """What an expression transposes, if it exchanges the last two axes."""
        if isinstance(node, ast.Attribute) and node.attr == "T":
            return node.value
        operation = self.names.operation(node)
        if operation is None or not operation.arguments:
            return None
        of = self.value(operation.arguments[0])
        order = permutation(operation, of.rank if isinstance(of, Array) else None)
        return operation.arguments[0] if order and swaps_last_two(order) else None

    def _weighted(
        self, node: ast.expr, weights: Weights, right: ast.expr, values: Value, einsum: str | None
    ) -> Value:
        layout = None
        if einsum is not None:
            letters = weights.scores.layout[2] if weights.scores.layout else None
            layout = weighted_layout(einsum, letters)
            if layout is None:
                return self._lose(weights, node, "are multiplied by an einsum that is not followed")
        elif weights.scores.layout and not _is_plain(weights.scores.layout):
            return self._lose(weights, node, "come from an einsum in another order")
        query, key = self.value(weights.scores.query), self.value(weights.scores.key)
        singles = [of.single for of in (query, key, values) if isinstance(of, Array) and of.rank]
        if True in singles and False in singles and (self.rank_of(weights.scores) or 0) > 2:
            reason = "multiplies arrays of which one may have another batch than the others"
            self.refuse(Lost(weights.scores.product, f"the attention {reason}", node.lineno))
            return Array()
        value_rank = values.rank if isinstance(values, Array) else None
        if layout is not None:
            value_rank = len(layout[1])
        ranks = (
            self._operand_rank(weights.scores, 0),
            self._operand_rank(weights.scores, 1),
            value_rank,
        )
        names = self.bindings(right) | weights.scores.names
        self.found.append(
            Found(weights, right, node, self.statement, names, ranks, layout, self.loop)
        )
        return Array(ranks[0] if len(set(ranks)) == 1 else None)

    def _operand_rank(self, scores: Scores, which: int) -> int | None:
        if scores.layout is not None:
            return len(scores.layout[which])
        node = (scores.query, scores.key)[which]
        value = self.value(node)
        if isinstance(value, Array) and value.rank is not None:
            return value.rank
        operation = self.names.operation(node)
        if operation is not None and operation.name == "transpose":
            return len(operation.axes("axes")) or None
        if operation is not None and operation.name == "swapaxes":
            pair = (
                integer(operation.argument(1, "axis1")),
                integer(operation.argument(2, "axis2")),
            )
            return 4 if set(pair) == {2, 3} else None
        return 2 if isinstance(node, ast.Attribute) and node.attr == "T" else None

    def rank_of(self, scores: Scores) -> int | None:
        """The number of axes of scores."""
        ranks = [self._operand_rank(scores, which) for which in (0, 1)]
        return max((rank for rank in ranks if rank), default=None)

    # What becomes of scores

    def _lose(self, of: Scores | Weights | Lost, node: ast.AST, reason: str) -> Lost:
        if isinstance(of, Lost):
            return of
        what = "weights" if isinstance(of, Weights) else "scores"
        product = of.scores.product if isinstance(of, Weights) else of.product
        line = getattr(node, "lineno", self.statement.lineno)
        return Lost(product, f"the {what} {reason}", line, isinstance(of, Weights))

    def refuse(self, of: Lost) -> None:
        """Keeps why attention is none that can be offered."""
        if all(known.product is not of.product for known in self.refused):
            self.refused.append(Refused(of.reason, of.line, of.product))

    def meet(self, one: Value, other: Value, node: ast.If | ast.IfExp) -> Value:
        """What is known of a value that is one or the other, as the test of `node` says."""
        if one == other:
            return one
        for of in (one, other):
            if isinstance(of, Lost):
                return of
        if isinstance(one, Scores) and isinstance(other, Scores):
            return self._meet_scores(one, other, node)
        for of in (one, other):
            if isinstance(of, Weights | Scores):
                return self._lose(of, node, "are made in one branch and not in the other")
        if isinstance(one, Array) and isinstance(other, Array):
            same = one.rank == other.rank
            return Array(
                one.rank if same else None,
                one.transposed and other.transposed,
                one.single and other.single,
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


def _with_product(of: Value, product: ast.expr) -> Value:
    return dataclasses.replace(of, product=product) if isinstance(of, Array) else of


def _is_number(node: ast.Constant) -> bool:
    return type(node.value) in (int, float)


def _large_negative(text: str) -> bool:
    try:
        return float(text) <= -_LARGE
    except ValueError:
        return False


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 40 else text[:37] + "..."


def _is_static(function: ast.FunctionDef) -> bool:
    return any(getattr(item, "id", "") == "staticmethod" for item in function.decorator_list)


def _is_plain(layout: tuple[str, str, str]) -> bool:
    query, key, result = layout
    return result == query[:-1] + key[-2]
