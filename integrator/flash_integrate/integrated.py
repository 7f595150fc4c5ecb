"""Finds the statements that the tool inserted, by their syntax: the way back, also after edits around them."""

from __future__ import annotations

import ast
from codecs import BOM_UTF8
from collections.abc import Iterator

from flash_integrate.errors import CannotRemove
from flash_integrate.snippets import BLOCK_SIZE_FLAG, BLOCK_SIZE_TYPE, DISABLE_FLAG, ENABLE, FLAG_NAMES, RUNTIME
from flash_integrate.source import Source
from flash_integrate.syntax import dotted, statements


def inserted_lines(source: Source) -> set[int]:
    """The line numbers (from 1) of everything that the tool put into a file; empty if it is not integrated.

    Raises:
        UnreadableSource: the file can't be parsed.
        CannotRemove: an inserted statement now shares a line with another one.
    """
    found = statements(source.tree, source.text)
    if not any(_is_runtime_import(statement.node) for statement in found):
        return set()
    lines = source.lines()
    numbers: set[int] = set()
    for statement in found:
        node = statement.node
        if not _is_inserted(node):
            continue
        if not (statement.starts_its_line and statement.ends_its_line):
            raise CannotRemove("an inserted statement shares its line with another", line=node.lineno)
        numbers.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        # The blank line above the import belongs to it, unless it is the module's first statement.
        if _is_runtime_import(node) and statement.index and not lines[node.lineno - 2].strip():
            numbers.add(node.lineno - 1)
    return numbers


def without_lines(source: Source, numbers: set[int]) -> bytes:
    """The file's bytes without the given lines; a last line that had no newline leaves none behind."""
    lines = source.lines()
    kept = [line for number, line in enumerate(lines, start=1) if number not in numbers]
    if 1 in numbers and lines[0].startswith(BOM_UTF8):  # the mark is the file's, not the line's
        kept.insert(0, BOM_UTF8)
    if kept and len(lines) in numbers and not lines[-1].endswith((b"\r", b"\n")):
        kept[-1] = kept[-1].rstrip(b"\r\n")
    return b"".join(kept)


def leftovers(source: Source) -> Iterator[tuple[int, str]]:
    """The lines on which a file still uses a name that only the removed import defined."""
    for node in source.nodes:
        if isinstance(node, ast.Name) and node.id in (ENABLE, BLOCK_SIZE_TYPE):
            yield node.lineno, node.id


def _is_inserted(node: ast.stmt) -> bool:
    return any(test(node) for test in (_is_runtime_import, _is_flag, _is_abbreviation, _is_call, _is_removal))


def _is_runtime_import(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Try) or len(node.body) != 1 or len(node.handlers) != 1 or node.orelse or node.finalbody:
        return False
    imported = node.body[0]
    return (
        isinstance(imported, ast.ImportFrom)
        and imported.module == RUNTIME
        and {alias.name for alias in imported.names} <= {ENABLE, BLOCK_SIZE_TYPE}
    )


def _is_flag(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call) or not node.value.args:
        return False
    call, first = node.value, node.value.args[0]
    adds = isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"
    return adds and isinstance(first, ast.Constant) and first.value in (DISABLE_FLAG, BLOCK_SIZE_FLAG)


def _is_abbreviation(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Subscript):
        return False
    target = node.targets[0]
    short = target.slice.value if isinstance(target.slice, ast.Constant) else None
    table = isinstance(target.value, ast.Attribute) and target.value.attr == "_option_string_actions"
    return table and isinstance(short, str) and any(flag.startswith(short) for flag in (DISABLE_FLAG, BLOCK_SIZE_FLAG))


def _is_call(node: ast.stmt) -> bool:
    test = node.test if isinstance(node, ast.If) else None
    # `unparse` recurses: a test that starts otherwise may be too deep for it.
    is_on_the_name = isinstance(test, ast.Compare) and dotted(test.left) == ENABLE
    return test is not None and is_on_the_name and ast.unparse(test) == f"{ENABLE} is not None"


def _is_removal(node: ast.stmt) -> bool:
    return isinstance(node, ast.Delete) and tuple(map(_last_name, node.targets)) == FLAG_NAMES


def _last_name(target: ast.expr) -> object:
    if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        return target.slice.value
    return target.attr if isinstance(target, ast.Attribute) else None
