"""What hides scores, said as the mask of a fused call: the word, a bool array, or a sum."""

from __future__ import annotations

import ast
import dataclasses
import re

from flash_codemods.handwritten.operations import Names
from flash_codemods.handwritten.values import Binding, Choice, Mask, Step
from flash_codemods.handwritten.writing.causal import CausalMasks, made_of
from flash_codemods.handwritten.writing.reasons import CannotSay
from flash_codemods.handwritten.writing.snippets import atom, term
from flash_codemods.handwritten.writing.text import Text

CAUSAL = '"causal"'


class MaskWriter(CausalMasks):
    """The text of masks. `scores` are the names of scores, of which nothing but the type may be
    asked, and `kind` is an expression of the type that an additive mask must have."""

    def __init__(self, text: Text, names: Names, scores: set[str], kind: str) -> None:
        super().__init__(text, names)
        self.scores = scores
        self.kind = kind
        self.bools: set[str] = set()
        """The names that stand for bool arrays, by the statements that make them."""

    def of(self, step: Mask) -> str:
        """The mask of one step."""
        if self.is_causal(step):
            return CAUSAL
        if step.bias is not None:
            return self.cast(self.bias(step))
        return self.seen(step)

    def made(self, step: Mask, node: ast.expr) -> str:
        """The mask of a step whose name stands for `node`."""
        bias = node if step.bias is not None else None
        return self.of(dataclasses.replace(step, bias=bias, seen=None if bias else node))

    def bias(self, step: Mask) -> str:
        """What a step adds to the scores."""
        assert step.bias is not None
        return self._without_cast(step.bias)

    def cast(self, text: str) -> str:
        """An additive mask in the type of the queries: MLX refuses a wider one."""
        cast = f".astype({self.kind})"
        return text if text.endswith(cast) else f"{atom(text)}{cast}"

    def seen(self, step: Mask) -> str:
        """Where a step lets keys be seen, as a bool array: MLX adds any other."""
        assert step.seen is not None
        node = step.seen
        if step.inverted:
            return self._inverse(node, step)
        text = self._own(node)
        if self.is_bool(node, step.names):
            return text
        return f"{atom(text)}.astype({self.names.core()}.bool_)"

    def combined(self, step: Mask, before: str) -> str:
        """A sum of masks with one more."""
        if step.bias is not None:
            return f"{before} + {term(self.bias(step))}"
        assert step.seen is not None
        assert step.fill is not None
        seen, fill = self._own(step.seen), self._own(self._fill(step.fill))
        pair = (fill, before) if step.inverted else (before, fill)
        return f"{self.names.core()}.where({seen}, {pair[0]}, {pair[1]})"

    def _fill(self, node: ast.expr) -> ast.expr:
        """The number in `mx.full(scores.shape, -1e9)`: it is as good without a shape."""
        operation = self.names.operation(node)
        filled = operation.argument(1, "vals") if operation and operation.name == "full" else None
        return filled if filled is not None else node

    def as_bias(self, step: Mask) -> str:
        """A step as a sum starts with it."""
        return self.bias(step) if step.bias is not None else self.combined(step, "0.0")

    def _without_cast(self, node: ast.expr) -> str:
        operation = self.names.operation(node)
        if operation is not None and operation.name == "astype":
            to = operation.argument(1, "dtype")
            if isinstance(to, ast.Attribute) and to.attr == "dtype":
                return self._own(operation.arguments[0])
        return self._own(node)

    def _own(self, node: ast.expr) -> str:
        """The file's own text, the type of the scores said by the queries."""
        parents = {
            child: parent for parent in ast.walk(node) for child in ast.iter_child_nodes(parent)
        }
        read = [
            part for part in ast.walk(node) if isinstance(part, ast.Name) and part.id in self.scores
        ]
        text = self.text.of(node)
        for part in read:
            parent = parents.get(part)
            if not isinstance(parent, ast.Attribute) or parent.attr != "dtype":
                raise CannotSay("the mask is made from the scores", part)
            text = re.sub(rf"\b{part.id}\.dtype\b", self.kind, text)
        return text

    def _inverse(self, node: ast.expr, step: Mask) -> str:
        operation = self.names.operation(node)
        if operation is not None and operation.name == "logical_not":
            inner = operation.arguments[0]
            text = self._own(inner)
            return (
                text
                if self.is_bool(inner, step.names)
                else f"{atom(text)}.astype({self.names.core()}.bool_)"
            )
        inverts = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert)
        if inverts and self.is_bool(node.operand, step.names):  # type: ignore[attr-defined]
            return self._own(node.operand)  # type: ignore[attr-defined]
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            opposite = {
                ast.Eq: "!=",
                ast.NotEq: "==",
                ast.Gt: "<=",
                ast.Lt: ">=",
                ast.GtE: "<",
                ast.LtE: ">",
            }
            sign = opposite.get(type(node.ops[0]))
            if sign is not None:
                return f"{self._own(node.left)} {sign} {self._own(node.comparators[0])}"
        text = self._own(node)
        if self.is_bool(node, step.names):
            return f"~{atom(text)}"
        return f"{self.names.core()}.logical_not({text})"

    def is_bool(self, node: ast.expr, names: dict[str, Binding]) -> bool:
        """Whether an expression gives a bool array."""
        if isinstance(node, ast.Compare):
            return True
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
            return self.is_bool(node.operand, names)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
            return self.is_bool(node.left, names) and self.is_bool(node.right, names)
        if isinstance(node, ast.Subscript):
            return self.is_bool(node.value, names)
        if isinstance(node, ast.Name):
            made = made_of(names.get(node.id))
            if made is None or not self.is_bool(made[0], made[1]):
                return False
            self.bools.add(node.id)
            return True
        operation = self.names.operation(node)
        if operation is None:
            return False
        if operation.name in ("logical_not", "logical_and", "logical_or", "isfinite", "isnan"):
            return True
        if operation.name in ("expand_dims", "reshape", "broadcast_to", "transpose", "tril"):
            return self.is_bool(operation.arguments[0], names)
        kind = operation.keywords.get("dtype") or (
            operation.argument(1, "dtype")
            if operation.name in ("astype", "ones", "zeros")
            else None
        )
        return kind is not None and self.names.full(kind) == "mlx.core.bool_"


def masks_of(steps: tuple[Step, ...]) -> list[Mask]:
    """Every mask in steps, those in branches too."""
    found: list[Mask] = []
    for step in steps:
        if isinstance(step, Choice):
            found += masks_of(step.then) + masks_of(step.otherwise)
        else:
            found.append(step)
    return found


def most_at_once(steps: tuple[Step, ...]) -> int:
    """How many masks can come together."""
    return sum(
        max(most_at_once(step.then), most_at_once(step.otherwise))
        if isinstance(step, Choice)
        else 1
        for step in steps
    )
