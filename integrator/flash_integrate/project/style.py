"""How a file's author writes calls."""

from __future__ import annotations

import ast
import re
from collections import Counter

from flash_integrate.inserted.snippets import Style
from flash_integrate.python.module import Module
from flash_integrate.python.syntax import dotted, walk

_ADDS_OPTION = {"add_argument", "option", "argument", "Option", "Argument"}


def style_of(module: Module) -> Style:
    """The quotes of the arguments' strings, and the width of the widest line that adds one."""
    lines = re.split(r"\r\n|\r|\n", module.text)
    width, quotes = 88, Counter[str]()
    for call in module.of_kind(ast.Call):
        if (
            isinstance(call, ast.Call)
            and (dotted(call.func) or "").rpartition(".")[2] in _ADDS_OPTION
        ):
            if call.lineno == call.end_lineno:
                width = max(width, len(lines[call.lineno - 1]))
            strings = [
                node for node in walk(call) if isinstance(node, ast.Constant) and _is_string(node)
            ]
            quotes.update(_source_character(lines, node) for node in strings)
    return Style("'" if quotes["'"] > quotes['"'] else '"', width)


def _is_string(node: ast.Constant) -> bool:
    return isinstance(node.value, str)


def _source_character(lines: list[str], node: ast.expr) -> str:
    """The character at which an expression starts; `col_offset` counts UTF-8 bytes."""
    return (
        lines[node.lineno - 1]
        .encode()[node.col_offset : node.col_offset + 1]
        .decode(errors="replace")
    )
