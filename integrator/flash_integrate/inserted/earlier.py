"""What the first versions inserted: an import of its own at the top, a call that asks whether the
runtime is there, abbreviations kept by argparse's own tables. Written no more, still taken out."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from flash_integrate.inserted.snippets import (
    BLOCK_SIZE_FLAG,
    DISABLE_FLAG,
    ENABLE,
    FLAG_NAMES,
    RUNTIME,
)
from flash_integrate.python.syntax import dotted, last_name

_TYPE = "flash_block_size"
_WITHOUT_RUNTIME = {ENABLE: "None", _TYPE: "int"}


def is_earlier(node: ast.stmt) -> bool:
    return is_earlier_import(node) or _is_call(node) or _keeps_abbreviations(node)


def has_earlier_type(given: Mapping[str, ast.expr]) -> bool:
    """Whether the arguments of an option give it the runtime's type."""
    return dotted(given.get("type")) == _TYPE


def is_earlier_import(node: ast.stmt) -> bool:
    """Whether it is the guarded import: its handler sets what is imported, and does nothing
    else."""
    if not isinstance(node, ast.Try) or node.orelse or node.finalbody:
        return False
    if len(node.body) != 1 or len(node.handlers) != 1 or len(node.handlers[0].body) != 1:
        return False
    imported, handler = node.body[0], node.handlers[0]
    if not isinstance(imported, ast.ImportFrom) or imported.module != RUNTIME:
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
    if len(targets) != len(values):
        return None
    if not all(isinstance(value, ast.Name | ast.Constant) for value in values):
        return None
    return dict(zip(map(dotted, targets), map(ast.unparse, values), strict=True))


def _is_call(node: ast.stmt) -> bool:
    """Whether it is `if enable_flash_attention is not None:` with the call alone."""
    if not isinstance(node, ast.If) or node.orelse or len(node.body) != 1:
        return False
    test, inner = node.test, node.body[0]
    # `unparse` recurses: a test that starts otherwise may be too deep for it.
    if not isinstance(test, ast.Compare) or dotted(test.left) != ENABLE:
        return False
    call = inner.value if isinstance(inner, ast.Expr) else None
    if ast.unparse(test) != f"{ENABLE} is not None" or not isinstance(call, ast.Call):
        return False
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    names = [
        last_name(value.operand if isinstance(value, ast.UnaryOp) else value) for value in values
    ]
    return dotted(call.func) == ENABLE and tuple(names) in ((), FLAG_NAMES)


def _keeps_abbreviations(node: ast.stmt) -> bool:
    """Whether it is `table["--d"] = table["--data"]`, or sets argparse's lookup to one without the
    two flags."""
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return False
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Subscript) and isinstance(value, ast.Subscript):
        short, table = last_name(target), dotted(target.value) or ""
        is_short = isinstance(short, str) and any(
            flag.startswith(short) for flag in (DISABLE_FLAG, BLOCK_SIZE_FLAG)
        )
        is_table = table.endswith("._option_string_actions") and dotted(value.value) == table
        return is_short and is_table
    sets_lookup = isinstance(target, ast.Attribute) and target.attr == "_get_option_tuples"
    if not sets_lookup or not isinstance(value, ast.Lambda):
        return False
    texts = [part.value for part in ast.walk(value) if isinstance(part, ast.Constant)]
    return set(FLAG_NAMES) <= set(texts)
