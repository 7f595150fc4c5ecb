"""Tells by its syntax whether a statement, an option or a parameter is one that the tool inserts
(`snippets.py`).

What people write themselves with the same names is not: a handler that does more, an `else`, a
default of their own.
"""

from __future__ import annotations

import ast

from flash_integrate.inserted.snippets import (
    BLOCK_SIZE_FLAG,
    BLOCK_SIZE_TYPE,
    DISABLE_FLAG,
    ENABLE,
    FLAG_NAMES,
    RUNTIME,
)
from flash_integrate.python.syntax import Function, dotted

_WITHOUT_RUNTIME = {ENABLE: "None", BLOCK_SIZE_TYPE: "int"}
_FLAGS = (DISABLE_FLAG, BLOCK_SIZE_FLAG)


def is_inserted(node: ast.stmt) -> bool:
    tests = (is_runtime_import, _is_flag, is_call, _is_removal, _is_of_an_earlier_version)
    return any(test(node) for test in tests)


def is_runtime_import(node: ast.stmt) -> bool:
    """Whether it is the guarded import: its handler sets what is imported, and does nothing
    else."""
    if (
        not isinstance(node, ast.Try)
        or len(node.body) != 1
        or len(node.handlers) != 1
        or node.orelse
        or node.finalbody
    ):
        return False
    imported, handler = node.body[0], node.handlers[0]
    if (
        not isinstance(imported, ast.ImportFrom)
        or imported.module != RUNTIME
        or len(handler.body) != 1
    ):
        return False
    expected = {
        alias.asname or alias.name: _WITHOUT_RUNTIME.get(alias.name) for alias in imported.names
    }
    return dotted(handler.type) == "ImportError" and _set_in(handler.body[0]) == expected


def _set_in(node: ast.stmt) -> dict[str | None, str] | None:
    """The names that `a, b = None, int` sets, and to what."""
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return None
    pair = (node.targets[0], node.value)
    targets, values = (part.elts if isinstance(part, ast.Tuple) else [part] for part in pair)
    if not all(isinstance(value, ast.Name | ast.Constant) for value in values) or len(
        targets
    ) != len(values):
        return None
    return dict(zip(map(dotted, targets), map(ast.unparse, values), strict=True))


def _is_flag(node: ast.stmt) -> bool:
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
    if flag.value == BLOCK_SIZE_FLAG:
        return dotted(given.get("type")) == BLOCK_SIZE_TYPE
    kind = given.get("action", given.get("is_flag"))
    switches = isinstance(kind, ast.Constant) and kind.value in ("store_true", True)
    return (
        switches
        and given.keys() <= {"action", "is_flag", "default", "help"}
        and _is_unset(given.get("default"))
    )


def _is_of_an_earlier_version(node: ast.stmt) -> bool:
    """Whether it is one of the statements by which the first versions kept abbreviations: they set
    `table["--d"] = table["--data"]`, or argparse's lookup to one without the two flags. They are
    written no more, and still taken out."""
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return False
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Subscript) and isinstance(value, ast.Subscript):
        short, table = _last_name(target), dotted(target.value) or ""
        is_short = isinstance(short, str) and any(flag.startswith(short) for flag in _FLAGS)
        return (
            is_short
            and table.endswith("._option_string_actions")
            and (dotted(value.value) == table)
        )
    sets_lookup = isinstance(target, ast.Attribute) and target.attr == "_get_option_tuples"
    if not sets_lookup or not isinstance(value, ast.Lambda):
        return False
    texts = [part.value for part in ast.walk(value) if isinstance(part, ast.Constant)]
    return set(FLAG_NAMES) <= set(texts)


def is_call(node: ast.stmt) -> bool:
    """Whether it is the guarded patch call, with the values of the flags or without."""
    if (
        not isinstance(node, ast.If)
        or node.orelse
        or len(node.body) != 1
        or not _is_test(node.test)
    ):
        return False
    call = node.body[0].value if isinstance(node.body[0], ast.Expr) else None
    if not isinstance(call, ast.Call) or dotted(call.func) != ENABLE:
        return False
    switches = [
        item.operand
        for item in call.args
        if isinstance(item, ast.UnaryOp) and isinstance(item.op, ast.Not)
    ]
    values = [
        *switches,
        *(keyword.value for keyword in call.keywords if keyword.arg == "block_size"),
    ]
    return len(values) == len(call.args) + len(call.keywords) and tuple(
        map(_last_name, values)
    ) in ((), FLAG_NAMES)


def _is_test(test: ast.expr) -> bool:
    # `unparse` recurses: a test that starts otherwise may be too deep for it.
    is_on_the_name = isinstance(test, ast.Compare) and dotted(test.left) == ENABLE
    return is_on_the_name and ast.unparse(test) == f"{ENABLE} is not None"


def _is_removal(node: ast.stmt) -> bool:
    names = node.targets if isinstance(node, ast.Delete) else []
    return tuple(map(_last_name, names)) == FLAG_NAMES and not any(
        isinstance(name, ast.Name) for name in names
    )


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


def _last_name(node: ast.expr) -> object:
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return node.slice.value
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)


def flag_value(node: ast.AST) -> str | None:
    """What an expression is called that reads one of the flags' values, `args.flash_block_size`."""
    if not isinstance(node, ast.Attribute | ast.Subscript) or _last_name(node) not in FLAG_NAMES:
        return None
    return ast.unparse(node) if dotted(node) else str(_last_name(node))
