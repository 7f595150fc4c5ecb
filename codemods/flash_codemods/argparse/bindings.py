"""What a statement makes of the value of a parse call: the expression that is the namespace, and
the name it gets."""

from __future__ import annotations

import ast

from flash_codemods.argparse.options import method
from flash_integrate.python.syntax import dotted, own_nodes


def unwrap(node: ast.stmt, call: ast.Call, mapping: bool) -> tuple[ast.expr, bool]:
    """The whole expression that is the namespace, and whether it is a dict: sees through
    `parse_known_args()[0]`, `vars(...)`, `dict(...)` and `.__dict__`."""
    expression: ast.expr = call
    while (outer := _wrapper(node, expression, call)) is not None:
        mapping = mapping or not isinstance(outer, ast.Subscript)
        expression = outer
    return expression, mapping


def _wrapper(node: ast.stmt, expression: ast.expr, call: ast.Call) -> ast.expr | None:
    known = parses_known(call) and expression is call
    for outer in own_nodes(node):
        if isinstance(outer, ast.Subscript) and outer.value is expression and known:
            return outer
        if (
            isinstance(outer, ast.Call)
            and dotted(outer.func) in ("vars", "dict")
            and outer.args == [expression]
        ):
            return outer
        if (
            isinstance(outer, ast.Attribute)
            and outer.value is expression
            and outer.attr == "__dict__"
        ):
            return outer
    return None


def parses_known(call: ast.Call) -> bool:
    """Whether a parse call returns a pair: the namespace and what is left of the command line."""
    return (method(call) or "").startswith("parse_known")


def target(node: ast.stmt, expression: ast.expr, call: ast.Call) -> str | None:
    """The name that an assignment gives to `expression`; of `args, rest = parse_known_args()` the
    first."""
    if isinstance(node, ast.Assign) and node.value is expression:
        target = node.targets[0]
        if parses_known(call) and expression is call:
            return dotted(target.elts[0]) if isinstance(target, ast.Tuple | ast.List) else None
        return dotted(target)
    if isinstance(node, ast.AnnAssign) and node.value is expression:
        return dotted(node.target)
    return None
