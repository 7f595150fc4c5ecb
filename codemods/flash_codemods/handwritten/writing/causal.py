"""Causal masks: triangles, comparisons of positions, MLX's own."""

from __future__ import annotations

import ast
import re

from flash_codemods.handwritten.operations import LAYERS, Names, integer
from flash_codemods.handwritten.values import Binding, Mask
from flash_codemods.handwritten.writing.text import Text

_LARGE = 1e3


class CausalMasks:
    """Recognises masks that hide from each query the keys behind it, however they are made."""

    def __init__(self, text: Text, names: Names) -> None:
        self.text = text
        self.names = names

    def is_causal(self, step: Mask) -> bool:
        """Whether a step hides from each query the keys behind it, and nothing else."""
        if step.bias is not None:
            return self._is_additive_causal(step.bias, step.names)
        assert step.seen is not None
        kind = self._order(step.seen, step.names)
        return kind == ("after" if step.inverted else "before")

    def _is_additive_causal(self, node: ast.expr, names: dict[str, Binding]) -> bool:
        node, names = self._core_of(node, names)
        operation = self.names.operation(node)
        if operation is None:
            if not isinstance(node, ast.Call):
                return False
            full = self.names.full(node.func) or ""
            made = isinstance(node.func, ast.Attribute) and node.func.attr == (
                "create_additive_causal_mask"
            )
            return made and full.startswith(f"{LAYERS}.MultiHeadAttention")
        if operation.name == "triu" and len(operation.arguments) >= 1:
            filled = self.names.operation(self._core_of(operation.arguments[0], names)[0])
            if filled is None or filled.name != "full" or len(filled.arguments) < 2:
                return False
            diagonal = operation.argument(1, "k")
            return self._is_large_negative(filled.arguments[1]) and self._is_square(
                filled.arguments[0], diagonal
            )
        if operation.name == "where" and len(operation.arguments) == 3:
            condition, one, other = operation.arguments
            order = self._order(condition, names)
            if order == "before":
                return _is_zero(one) and self._is_large_negative(other)
            return order == "after" and _is_zero(other) and self._is_large_negative(one)
        return False

    def _core_of(
        self, node: ast.expr, names: dict[str, Binding]
    ) -> tuple[ast.expr, dict[str, Binding]]:
        """What an expression is without casts and new axes, names followed to where they are
        made."""
        while True:
            if isinstance(node, ast.Name) and (made := made_of(names.get(node.id))) is not None:
                node, names = made
            elif isinstance(node, ast.Subscript) and _adds_axes(node.slice):
                node = node.value
            elif (
                (operation := self.names.operation(node)) is not None
                and operation.name in ("astype", "expand_dims")
                and operation.arguments
            ):
                node = operation.arguments[0]
            else:
                return node, names

    def _order(self, node: ast.expr, names: dict[str, Binding]) -> str | None:
        """`before` for what is true where a key does not stand behind its query, `after` for what
        is true where it does."""
        node, names = self._core_of(node, names)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
            inner = self._order(node.operand, names)
            return {"before": "after", "after": "before"}.get(inner or "")
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return self._compared(node, names)
        operation = self.names.operation(node)
        if operation is None or operation.name not in ("tril", "triu") or not operation.arguments:
            return None
        ones = self.names.operation(self._core_of(operation.arguments[0], names)[0])
        if ones is None or ones.name != "ones" or not ones.arguments:
            return None
        diagonal = operation.argument(1, "k")
        if operation.name == "tril":
            if diagonal is None or integer(diagonal) == 0:
                return "before" if self._is_square(ones.arguments[0], None, None) else None
            return None
        return "after" if self._is_square(ones.arguments[0], diagonal) else None

    def _compared(self, node: ast.Compare, names: dict[str, Binding]) -> str | None:
        left, right = node.left, node.comparators[0]
        if _is_zero(right) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
            inner = self._order(left, names)
            if isinstance(node.ops[0], ast.NotEq) or inner is None:
                return inner
            return {"before": "after", "after": "before"}[inner]
        one, other = self._positions(left, names), self._positions(right, names)
        if one is None or other is None or one[0] == other[0] or not _line_up(one, other):
            return None
        signs = {ast.GtE: "query", ast.LtE: "key"}
        strict = {ast.Lt: "query", ast.Gt: "key"}
        kind = type(node.ops[0])
        if signs.get(kind) == one[0]:
            return "before"
        return "after" if strict.get(kind) == one[0] else None

    def _positions(self, node: ast.expr, names: dict[str, Binding]) -> tuple[str, list[str]] | None:
        """`arange(L)[:, None]` are positions of queries, `arange(L)[None]` those of keys, with the
        texts between which they run."""
        side = None
        for _ in range(4):
            if isinstance(node, ast.Name) and (made := made_of(names.get(node.id))) is not None:
                node, names = made
            elif isinstance(node, ast.Subscript) and _adds_axes(node.slice) and side is None:
                side = _side(node.slice)
                node = node.value
            else:
                break
        behind = ""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            behind, node = self.text.of(node.right), node.left
            if isinstance(node, ast.Subscript) and _adds_axes(node.slice) and side is None:
                side, node = _side(node.slice), node.value
        operation = self.names.operation(node)
        if operation is not None and operation.name == "reshape" and side is None:
            sizes = [integer(size) for size in operation.axes("shape")]
            side = {(None, 1): "query", (-1, 1): "query", (1, None): "key", (1, -1): "key"}.get(
                tuple(sizes)  # type: ignore[arg-type]
            )
            operation = self.names.operation(operation.arguments[0])
        if operation is None or operation.name != "arange" or side is None:
            return None
        if set(operation.keywords) - {"dtype"} or len(operation.arguments) > 2:
            return None
        between = [self.text.of(item) for item in operation.arguments]
        if not behind:
            return side, between
        # `arange(L) + S - L` runs from S - L to S.
        start = re.sub(r"[\s()]", "", behind)
        last, before, own = start.rpartition("-")
        return (side, [start, last]) if before and [own] == between else None

    def _is_square(
        self, shape: ast.expr, diagonal: ast.expr | None, wanted: int | None = 1
    ) -> bool:
        """Whether a triangle of this shape, from this diagonal on, is that of a causal mask: square
        and above the main diagonal, or aligned at its end."""
        if not isinstance(shape, ast.Tuple | ast.List) or len(shape.elts) != 2:
            return False
        rows, columns = (self.text.of(size) for size in shape.elts)
        if rows == columns:
            return wanted is None or integer(diagonal) == wanted
        if diagonal is None or wanted is None:
            return False
        aligned = re.sub(r"\s", "", self.text.of(diagonal))
        return aligned in (f"{columns}-{rows}+1", f"1+{columns}-{rows}")

    def _is_large_negative(self, node: ast.expr) -> bool:
        text = re.sub(r"\s", "", ast.unparse(node)).lower()
        text = re.sub(r"^mx\.array\((.*)\)$", r"\1", text)
        if re.fullmatch(r"-(mx|np|math)\.inf|-?float\(['\"]-?inf(inity)?['\"]\)", text):
            return text.count("-") == 1
        if re.fullmatch(r"(mx|np)\.finfo\(.*\)\.min", text):
            return True
        try:
            return float(text) <= -_LARGE
        except ValueError:
            return False


def _adds_axes(index: ast.expr) -> bool:
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    return all(
        (isinstance(part, ast.Constant) and part.value in (None, Ellipsis))
        or (isinstance(part, ast.Slice) and part.lower is part.upper is part.step is None)
        for part in parts
    )


def _side(index: ast.expr) -> str | None:
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    new = [isinstance(part, ast.Constant) and part.value is None for part in parts]
    return {(False, True): "query", (True, False): "key", (True,): "key"}.get(tuple(new))


def _line_up(one: tuple[str, list[str]], other: tuple[str, list[str]]) -> bool:
    """Whether the last query stands at the last key."""
    query, key = (one[1], other[1]) if one[0] == "query" else (other[1], one[1])
    if query == key:
        return True
    ends = [re.sub(r"\s", "", text[-1]) for text in (query, key)]
    if len(key) != 1 or len(query) != 2:
        return False
    return ends[0] == ends[1]


def _is_zero(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and node.args:
        return _is_zero(node.args[0])
    return isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value == 0


def made_of(binding: Binding | None) -> tuple[ast.expr, dict[str, Binding]] | None:
    """The expression that made what a name stands for, where one statement did."""
    statement = binding.statement if binding is not None else None
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return None
    if not isinstance(statement.targets[0], ast.Name):
        return None
    assert binding is not None
    return statement.value, binding.seen
