"""What the inputs of a function are used as: arrays, masks, numbers, words, choices."""

from __future__ import annotations

import ast
from collections.abc import Callable

from flash_codemods.handwritten.proving.missing import text_of

_LARGE = 1e3


def kinds_of_inputs(statements: list[ast.stmt]) -> dict[str, set[str]]:
    """What each name and attribute is used as: an array that is added, a condition, None, a
    number, the word of a test."""
    found: dict[str, set[str]] = {}

    def note(node: ast.AST, kind: str) -> None:
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript | ast.Call):
            found.setdefault(text_of(node), set()).add(kind)
        inner = _of_view(node)
        if inner is not None:
            note(inner, kind)

    for statement in statements:
        for node in ast.walk(statement):
            _note_node(node, note)
    for statement in reversed(statements):
        if isinstance(statement, ast.Assign) and (inner := _of_view(statement.value)) is not None:
            for kind in tuple(found.get(text_of(statement.targets[0]), ())):
                note(inner, kind)
    return found


def _of_view(node: ast.AST) -> ast.AST | None:
    """The array of which another is a view, or a cast."""
    if isinstance(node, ast.Subscript):
        return node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.value if node.func.attr == "astype" else None
    return None


_Note = Callable[[ast.AST, str], None]


def _note_node(node: ast.AST, note: _Note) -> None:
    if isinstance(node, ast.Compare):
        _note_comparison(node, note)
    elif isinstance(node, ast.If | ast.IfExp):
        _note_test(node.test, note)
    elif isinstance(node, ast.Subscript):
        note(node.value, "array")
    elif isinstance(node, ast.Slice):
        for part, kind in ((node.lower, "lower"), (node.upper, "upper")):
            if isinstance(part, ast.Name):
                note(part, kind)
    elif isinstance(node, ast.Attribute) and node.attr in ("ndim", "dtype", "shape"):
        note(node.value, "typed" if node.attr == "dtype" else "array")
    elif isinstance(node, ast.Call):
        _note_call(node, note)
    elif isinstance(node, ast.BinOp):
        kind = "added" if isinstance(node.op, ast.Add) else "number"
        note(node.left, kind)
        note(node.right, kind)
        if isinstance(node.op, ast.Mult) and _is_large_negative(node.right):
            note(node.left, "marks")  # `mask * -1e9`
        if isinstance(node.op, ast.Sub) and getattr(node.left, "value", None) == 1:
            note(node.right, "marks")  # `1 - mask`
    elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
        note(node.value, "added")
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        note(node.operand, "condition")


def _is_large_negative(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and isinstance(node.operand, ast.Constant)
        and isinstance(node.operand.value, int | float)
        and node.operand.value >= _LARGE
    )


def _note_comparison(node: ast.Compare, note: _Note) -> None:
    values = [part.value for part in node.comparators if isinstance(part, ast.Constant)]
    if isinstance(node.left, ast.Attribute) and node.left.attr == "dtype":
        note(node.left.value, "condition")  # it may be either
        note(node.left.value, "added")
    for word in (value for value in values if isinstance(value, str)):
        note(node.left, f"word {word}")
    if None in values:
        note(node.left, "none")
    elif any(isinstance(value, str) for value in values):
        return
    elif 0 in values or (1 in values and isinstance(node.ops[0], ast.Eq | ast.NotEq)):
        note(node.left, "condition")
        note(node.left, "number")
    else:
        for part in (node.left, *node.comparators):
            note(part, "number")


def _note_test(test: ast.expr, note: _Note) -> None:
    if isinstance(test, ast.BoolOp):
        for part in test.values:
            _note_test(part, note)
    elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        _note_test(test.operand, note)
    else:
        note(test, "test")


def _note_call(node: ast.Call, note: _Note) -> None:
    if getattr(node.func, "id", "") == "isinstance" and len(node.args) == 2:
        if getattr(node.args[1], "id", "") == "str":
            note(node.args[0], "word causal")
        return
    if not isinstance(node.func, ast.Attribute):
        return
    if getattr(node.func.value, "id", "") == "math":
        for part in node.args:
            note(part, "number")
    elif node.func.attr == "astype":
        whole = ast.unparse(node)
        kind = "condition" if "bool_" in whole else "array"
        note(node.func.value, kind)
        if isinstance(node.func.value, ast.BinOp):  # `(mask * -1e9).astype(q.dtype)`
            note(node.func.value.left, kind)
            note(node.func.value.right, kind)
    elif (node.func.attr == "where" and len(node.args) == 3) or (
        node.func.attr == "logical_not" and node.args
    ):
        note(node.args[0], "condition")
    elif node.func.attr in ("expand_dims", "broadcast_to") and node.args:
        note(node.args[0], "array")
    elif node.func.attr in ("full", "arange", "ones", "zeros", "create_additive_causal_mask"):
        for inner in (inner for part in node.args for inner in ast.walk(part)):
            note(inner, "size")
    elif node.func.attr == "repeat":
        for inner in (inner for part in node.args[1:] for inner in ast.walk(part)):
            note(inner, "number")
