"""How a file is written."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable

from flash_integrate.inserted.snippets import Style
from flash_integrate.python.module import Module
from flash_integrate.python.syntax import dotted, walk

_ADDS_OPTION = {"add_argument", "option", "argument", "Option", "Argument"}


def style_of(module: Module, width: int) -> Style:
    """The quotes of the options' strings, of all strings where there are no options; `width` is
    that of the file's lines."""
    calls = (node for node in module.of_kind(ast.Call) if isinstance(node, ast.Call))
    options = [
        call for call in calls if (dotted(call.func) or "").rpartition(".")[2] in _ADDS_OPTION
    ]
    quotes = _quotes(module, (part for call in options for part in walk(call)))
    quotes = quotes or _quotes(module, module.nodes)
    return Style("'" if quotes["'"] > quotes['"'] else '"', width)


def _quotes(module: Module, nodes: Iterable[ast.AST]) -> Counter[str]:
    """How often strings on one line begin with which quote."""
    lines = re.split(r"\r\n|\r|\n", module.text)
    strings = [
        node
        for node in nodes
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.lineno == node.end_lineno
    ]
    first = (_source_character(lines, node) for node in strings)
    return Counter(character for character in first if character in "'\"")


def _source_character(lines: list[str], node: ast.expr) -> str:
    """The character at which an expression starts; `col_offset` counts UTF-8 bytes."""
    return (
        lines[node.lineno - 1]
        .encode()[node.col_offset : node.col_offset + 1]
        .decode(errors="replace")
    )
