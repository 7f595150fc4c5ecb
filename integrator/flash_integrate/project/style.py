"""How a file is written."""

from __future__ import annotations

import ast
import re
from collections import Counter

from flash_integrate.inserted.snippets import Style
from flash_integrate.python.module import Module


def style_of(module: Module, width: int) -> Style:
    """The quotes with which most strings on one line begin; `width` is that of the file's lines."""
    lines = re.split(r"\r\n|\r|\n", module.text)
    strings = [
        node
        for node in module.of_kind(ast.Constant)
        if isinstance(node.value, str) and node.lineno == node.end_lineno
    ]
    first = Counter(_source_character(lines, node) for node in strings)
    return Style("'" if first["'"] > first['"'] else '"', width)


def _source_character(lines: list[str], node: ast.expr) -> str:
    """The character at which an expression starts; `col_offset` counts UTF-8 bytes."""
    return (
        lines[node.lineno - 1]
        .encode()[node.col_offset : node.col_offset + 1]
        .decode(errors="replace")
    )
