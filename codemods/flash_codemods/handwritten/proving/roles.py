"""Which inputs of a function are its queries, keys and values, and in which order they hold their
axes."""

from __future__ import annotations

import ast
import itertools
from typing import Any

from flash_codemods.handwritten.operations import Names
from flash_codemods.handwritten.proving.cases import ALL_SIZES, UNFIT, Sizes
from flash_codemods.handwritten.proving.evaluator import Evaluator
from flash_codemods.handwritten.proving.missing import Missing, NotEvaluable
from flash_codemods.handwritten.proving.versions import Version

Orders = dict[str, tuple[str, tuple[int, ...]]]
"""For the text of each of queries, keys and values its role, and the order of its axes."""


def orders_of(mx: Any, new: Version, rank: int) -> Orders | None:
    """How the fused call's version holds queries, keys and values of so many axes; None where
    that can't be told."""
    sizes = ALL_SIZES[0]
    found: Orders = {}
    call = _call_of(new.target)
    for role, argument in zip(("query", "key", "value"), call.args, strict=False):
        base = _base(argument, new.names)
        making = [item for item in new.suite if _binds(item, base)]
        wanted = (1,) * (4 - rank) + sizes.shape(role, rank)
        for order in itertools.permutations(range(rank)):
            shape = tuple(sizes.shape(role, rank)[axis] for axis in order)
            key = _asked_for(mx, new.names, making, argument, mx.zeros(shape), wanted)
            if key is not None:
                found[key] = (role, order)
                break
        else:
            return None
    return found


def _asked_for(
    mx: Any,
    names: Names,
    making: list[ast.stmt],
    argument: ast.expr,
    array: Any,
    wanted: tuple[int, ...],
) -> str | None:
    """The text of the input that has to be `array` for an argument to have its shape."""
    inputs: dict[str, Any] = {}
    slices = [part for part in ast.walk(argument) if isinstance(part, ast.Slice)]
    bounds = {ast.unparse(part) for item in slices for part in (item.lower, item.upper) if part}
    for _ in range(4):
        evaluator = Evaluator(mx, names, inputs)
        asked = ast.copy_location(ast.Expr(argument), argument)
        try:
            result = evaluator.run([*making, asked], argument)
        except Missing as missing:
            other = None if missing.key in bounds else 0.37
            inputs[missing.key] = other if inputs else array
            continue
        except (NotEvaluable, *UNFIT):
            return None
        return next(iter(inputs)) if tuple(result.shape) == wanted and inputs else None
    return None


def shape_of_result(new: Version, sizes: Sizes, rank: int) -> tuple[int, ...]:
    """The shape of what the new version gives."""
    shape = (*sizes.shape("query", rank)[:-1], sizes.features)
    order = _order_of_result(new.target)
    return shape if order is None else tuple(shape[axis] for axis in order)


def _order_of_result(node: ast.expr) -> list[int] | None:
    """The transposition behind the call that an einsum had in it."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "transpose":
            return [argument.value for argument in node.args]  # type: ignore[attr-defined]
        if not isinstance(node.func.value, ast.Call):
            return None
        node = node.func.value
    return None


def _call_of(node: ast.expr) -> ast.Call:
    """The fused call in what stands in the place of weights times values."""
    part: Any = node
    while getattr(getattr(part, "func", None), "attr", "") != "scaled_dot_product_attention":
        part = part.func if isinstance(part, ast.Call) else part.value
    assert isinstance(part, ast.Call)
    return part


def _binds(statement: ast.stmt, name: str) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(getattr(target, "id", None) == name for target in targets)


def _base(node: ast.expr, names: Names) -> str:
    """The text of what an argument is made of: `keys` of `keys.swapaxes(-1, -2)`."""
    while True:
        operation = names.operation(node)
        if operation is not None and operation.arguments:
            node = operation.arguments[0]
        elif isinstance(node, ast.Subscript):
            node = node.value
        else:
            return ast.unparse(node)
