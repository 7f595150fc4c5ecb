"""Tells by its syntax whether a statement, an option or a parameter is one that the tool inserts
(`snippets.py`).

What people write themselves with the same names is not: a handler that does more, an `else`, a
default of their own.
"""

from __future__ import annotations

import ast

from flash_integrate.inserted.earlier import has_earlier_type, is_earlier
from flash_integrate.inserted.snippets import (
    BLOCK_SIZE_FLAG,
    DISABLE_FLAG,
    ENABLE,
    FLAG_NAMES,
    RUNTIME,
)
from flash_integrate.python.syntax import Function, dotted, last_name

_FLAGS = (DISABLE_FLAG, BLOCK_SIZE_FLAG)


def is_inserted(node: ast.stmt) -> bool:
    return is_call(node) or is_flag(node) or _is_removal(node) or is_earlier(node)


def is_flag(node: ast.stmt) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    return (
        isinstance(call, ast.Call)
        and getattr(call.func, "attr", "") == "add_argument"
        and is_option(call)
    )


def is_option(node: ast.expr) -> bool:
    """Whether a call defines one of the two flags as we do, on a parser or above a command of
    click. The help may have been reworded since."""
    flag = node.args[0] if isinstance(node, ast.Call) and len(node.args) == 1 else None
    if (
        not isinstance(node, ast.Call)
        or not isinstance(flag, ast.Constant)
        or flag.value not in _FLAGS
    ):
        return False
    given = {keyword.arg or "**": keyword.value for keyword in node.keywords}
    if flag.value == BLOCK_SIZE_FLAG and has_earlier_type(given):
        return True
    if not _is_unset(given.get("default")):
        return False
    if flag.value == BLOCK_SIZE_FLAG:
        return "metavar" in given and given.keys() <= {"default", "metavar", "help"}
    kind = given.get("action", given.get("is_flag"))
    switches = isinstance(kind, ast.Constant) and kind.value in ("store_true", True)
    return switches and given.keys() <= {"action", "is_flag", "default", "help"}


def is_call(node: ast.stmt) -> bool:
    """Whether it is the import with the patch call, with the values of the flags or without."""
    if (
        not isinstance(node, ast.Try)
        or node.finalbody
        or [len(part) for part in (node.body, node.handlers, node.orelse)] != [1, 1, 1]
    ):
        return False
    imported, handler, call = node.body[0], node.handlers[0], node.orelse[0]
    return (
        _imports_the_runtime(imported)
        and dotted(handler.type) == "ImportError"
        and handler.name is None
        and len(handler.body) == 1
        and isinstance(handler.body[0], ast.Pass)
        and isinstance(call, ast.Expr)
        and _enables(call.value)
    )


def _imports_the_runtime(node: ast.stmt) -> bool:
    if not isinstance(node, ast.ImportFrom) or node.module != RUNTIME:
        return False
    return [(alias.name, alias.asname) for alias in node.names] == [(ENABLE, None)]


def _enables(call: ast.expr) -> bool:
    """Whether it is the patch call, which may name the block size."""
    if not isinstance(call, ast.Call) or dotted(call.func) != ENABLE:
        return False
    if ast.unparse(call) == f"{ENABLE}(inherit=True)":
        return True
    values = [*call.args, *(item.value for item in call.keywords if item.arg == "block_size")]
    if len(values) != len(call.args) + len(call.keywords):
        return False
    if values and isinstance(values[0], ast.UnaryOp) and isinstance(values[0].op, ast.Not):
        values[0] = values[0].operand
        return tuple(map(last_name, values)) == FLAG_NAMES
    return not values


def _is_removal(node: ast.stmt) -> bool:
    """Whether it takes the names of the flags out of a namespace, one or both."""
    names = node.targets if isinstance(node, ast.Delete) else []
    of_flags = [name for name in names if last_name(name) in FLAG_NAMES]
    return len(of_flags) == len(names) > 0 and not any(isinstance(name, ast.Name) for name in names)


def flag_parameters(node: Function) -> set[str]:
    """The parameters of a command that are ours: they have the names, and no value of their own."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    given = list(zip(reversed(positional), reversed(arguments.defaults), strict=False))
    given += [
        (item, value)
        for item, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if value
    ]
    return {
        item.arg
        for item, value in given
        if item.arg in FLAG_NAMES and _is_unset(_default_of(value))
    }


def _default_of(value: ast.expr) -> ast.expr | None:
    """The default that `typer.Option(None, ...)` gives, or the value itself."""
    return next(iter(value.args), None) if isinstance(value, ast.Call) else value


def _is_unset(default: ast.expr | None) -> bool:
    return default is None or (isinstance(default, ast.Constant) and default.value in (None, False))


def flag_value(node: ast.AST) -> str | None:
    """What an expression is called that reads one of the flags' values, `args.flash_block_size`."""
    if not isinstance(node, ast.Attribute | ast.Subscript) or last_name(node) not in FLAG_NAMES:
        return None
    return ast.unparse(node) if dotted(node) else str(last_name(node))
