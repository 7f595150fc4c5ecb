"""Products of two arrays: of queries and keys, of weights and values, or of neither."""

from __future__ import annotations

import ast

from flash_codemods.handwritten.layouts import (
    attention_layout,
    weighted_layout,
    without_layout,
)
from flash_codemods.handwritten.operations import (
    integer,
    permutation,
    swaps_last_two,
)
from flash_codemods.handwritten.reading.state import State, short
from flash_codemods.handwritten.values import (
    Array,
    Found,
    Lost,
    Scores,
    Value,
    Weights,
)


class Products(State):
    """Tells which product it is by what is multiplied."""

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
                return self._no_keys(node, without_layout(einsum))
            return Scores(node, left, right, names, layout)
        if self._is_transposed(right, other):
            return Scores(node, left, right, names)
        return self._no_keys(node, "has a second factor that is not known to be transposed keys")

    def _lose_at_product(self, of: Weights, node: ast.expr, reason: str) -> Lost:
        """Weights that are multiplied, as those of attention are, but in another way."""
        lost = self._lose(of, node, reason)
        self.refuse(lost)
        return lost

    def added_product(self, node: ast.Call) -> Value:
        """`mx.addmm(bias, queries, keys.T)`: a product that is added to something in one call."""
        for given in [*node.args, *(item.value for item in node.keywords)]:
            of = self.value(given)
            if isinstance(of, Weights):
                of = self._lose(of, node, "are multiplied by `addmm`, which adds too")
            if isinstance(of, Lost) and of.is_weights:
                self.refuse(of)
                return of
        return self._no_keys(node, "is added to another array in the same call")

    def multiplied(self, node: ast.AST) -> list[ast.Name]:
        """The names of the arrays that a product multiplies."""
        operation = self.names.operation(node) if isinstance(node, ast.Call) else None
        factors: tuple[ast.expr, ...] = ()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            factors = (node.left, node.right)
        elif operation is not None and operation.name in ("matmul", "einsum", "addmm"):
            factors = operation.arguments
        return [factor for factor in factors if isinstance(factor, ast.Name)]

    def _no_keys(self, node: ast.expr, reason: str) -> Array:
        self.no_keys[node] = Lost(node, f"the product `{short(node)}` {reason}", node.lineno, True)
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
                return self._lose_at_product(
                    weights, node, "are multiplied by an einsum that pairs other axes than theirs"
                )
        elif weights.scores.layout and not _is_plain(weights.scores.layout):
            return self._lose_at_product(weights, node, "come from an einsum in another order")
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


def _is_plain(layout: tuple[str, str, str]) -> bool:
    query, key, result = layout
    return result == query[:-1] + key[-2]
