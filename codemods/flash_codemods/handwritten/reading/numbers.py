"""Numbers that a function keeps in arrays, said as Python's own: a fused call takes no other."""

from __future__ import annotations

import ast
from collections.abc import Callable

from flash_codemods.handwritten.operations import Names
from flash_codemods.handwritten.values import Binding

_POWERS = {"sqrt": 0.5, "rsqrt": -0.5}


def python_number(
    node: ast.expr,
    names: Names,
    env: dict[str, Binding],
    is_number: Callable[[ast.expr], bool],
) -> ast.expr | None:
    """`1.0 / float(n) ** 0.5` for `1.0 / mx.sqrt(mx.array(float(n)))`, also behind a name; None for
    what is not known to be made of one number of Python's. `env` is what names stand for."""

    def said(part: ast.expr) -> ast.expr | None:
        return python_number(part, names, env, is_number)

    if is_number(node):
        return node
    if isinstance(node, ast.Name) and (binding := env.get(node.id)) is not None:
        made = getattr(binding.statement, "value", None)
        same = all(env.get(name) is seen for name, seen in binding.seen.items())
        plain = isinstance(binding.statement, ast.Assign) and same
        return said(made) if plain and isinstance(made, ast.expr) else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        left, right = said(node.left), said(node.right)
        return ast.BinOp(left, node.op, right) if left is not None and right is not None else None
    operation = names.operation(node)
    if operation is None or not operation.arguments or operation.name not in ("array", *_POWERS):
        return None
    inner = said(operation.arguments[0])
    if inner is None or operation.name == "array":
        return inner
    return ast.BinOp(inner, ast.Pow(), ast.Constant(_POWERS[operation.name]))
