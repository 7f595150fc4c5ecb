"""How a file is written."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable

from flash_integrate.inserted.snippets import Style
from flash_integrate.python.module import Module


def style_of(module: Module, width: int) -> Style:
    """The quotes of the file's strings; `width` is that of its lines."""
    return Style(quote_in(module, module.nodes) or '"', width)


def quote_in(module: Module, nodes: Iterable[ast.AST]) -> str | None:
    """The quotes with which most strings on one line begin; None without any."""
    lines = re.split(r"\r\n|\r|\n", module.text)
    strings = [
        node
        for node in nodes
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.lineno == node.end_lineno
    ]
    first = Counter(_source_character(lines, node) for node in strings)
    if not first["'"] + first['"']:
        return None
    return "'" if first["'"] > first['"'] else '"'


def _source_character(lines: list[str], node: ast.expr) -> str:
    """The character at which an expression starts; `col_offset` counts UTF-8 bytes."""
    return (
        lines[node.lineno - 1]
        .encode()[node.col_offset : node.col_offset + 1]
        .decode(errors="replace")
    )
