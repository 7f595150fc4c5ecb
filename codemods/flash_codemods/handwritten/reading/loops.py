"""What loops bind their variables to."""

from __future__ import annotations

import ast
import dataclasses

from flash_codemods.handwritten.operations import Names
from flash_codemods.handwritten.values import Array, Items, Number, Other, Shape, Value


def one_of(of: Value, node: ast.expr, names: Names) -> Value:
    """What a loop over a value binds in its turns."""
    operation = names.operation(node)
    if isinstance(of, Shape):
        return Number()
    if isinstance(of, Items):
        return of.values[0] if len(set(of.values)) == 1 else Other()
    if isinstance(of, Array) and operation is not None and operation.name == "split":
        return dataclasses.replace(of, single=False)
    return Array(of.rank - 1 if of.rank else None) if isinstance(of, Array) else Other()


def counts(statement: ast.stmt) -> bool:
    """Whether a loop goes over `range(...)`."""
    of = getattr(statement, "iter", None)
    return isinstance(of, ast.Call) and getattr(of.func, "id", "") == "range"
