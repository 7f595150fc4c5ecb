"""What LibCST can take, measured on the syntax tree before it is asked.

Beyond a depth its parser overflows the stack, which ends the process; the time that it takes grows
with the square of an expression's depth, and doubles with each bracket in a pattern. It keeps two
kilobytes for each value of a list.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator

from flash_integrate.errors import UnsafeRewrite
from flash_integrate.python.source import Source

# The parser overflows a stack of 8 MB at 8,000 operands. At 400 to 800 LibCST fails to print what
# it has read.
_DEEPEST = 500
_DEEPEST_PATTERN = 8
_MOST_NODES = 200_000


def check_limits(source: Source) -> None:
    """Whether LibCST can read and print a file.

    Raises:
        UnsafeRewrite: it can't; says what is too much for it, and on which line.
        UnreadableSource: the file can't be parsed.
    """
    if len(source.nodes) > _MOST_NODES:
        raise UnsafeRewrite(
            f"holds {len(source.nodes):,} names and values, more than LibCST can take; "
            "tables of data belong in files of their own"
        )
    todo: list[tuple[ast.AST, int, int]] = [(source.tree, 0, 1)]
    while todo:
        node, depth, line = todo.pop()
        depth, line = depth + _links(node), getattr(node, "lineno", line)
        if depth > _DEEPEST:
            raise UnsafeRewrite("has an expression that is too deep for LibCST to print", line)
        todo += [(child, depth, line) for child in ast.iter_child_nodes(node)]
    if any(isinstance(node, ast.Match) for node in source.nodes):
        _check_patterns(source.text)


def _links(node: ast.AST) -> int:
    """How many nodes one within the other LibCST makes of a node, where `ast` has one."""
    if isinstance(node, ast.BoolOp):
        return len(node.values)
    if isinstance(node, ast.Import | ast.ImportFrom):
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        return 1 + max(name.count(".") for name in [module, *(alias.name for alias in node.names)])
    return 1


def _check_patterns(text: str) -> None:
    """Whether the brackets of a `case` are few enough. `ast` does not show those around a single
    pattern."""
    depth, is_case, is_first = 0, False, True
    for token in _tokens(text):
        if is_first:
            is_case, is_first = token.string == "case", False
        if token.type == tokenize.NEWLINE:
            is_first = True
        elif token.type == tokenize.OP:
            depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(token.string, 0)
        if is_case and depth > _DEEPEST_PATTERN:
            raise UnsafeRewrite(
                "has a pattern with too many brackets within each other for LibCST", token.start[0]
            )


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    skipped = {tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}
    readline = io.StringIO(text.removeprefix("\N{BYTE ORDER MARK}"), newline=None).readline
    return (token for token in tokenize.generate_tokens(readline) if token.type not in skipped)
