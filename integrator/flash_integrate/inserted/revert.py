"""The way back: a script without what the tool put into it."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from flash_integrate.errors import CannotRemove, FileError, UnsafeRewrite
from flash_integrate.inserted.forms import flag_value, is_flag
from flash_integrate.inserted.removal import Inserted, inserted, without
from flash_integrate.inserted.snippets import (
    BLOCK_SIZE_FLAG,
    DISABLE_FLAG,
    ENABLE,
    FLAG_NAMES,
    RUNTIME,
)
from flash_integrate.python.edits import Rewritten
from flash_integrate.python.source import Source
from flash_integrate.python.syntax import dotted, statements


def revert_script(source: Source) -> Rewritten | None:
    """A script without its insertions, None if it has none.

    Raises:
        UnreadableSource: the file can't be parsed.
        CannotRemove: an inserted statement now shares a line with another one, or a line that was
            edited since would use what is gone.
        UnsafeRewrite: without the inserted lines the file would not be valid.
    """
    holds_any = any(word.encode() in source.data for word in (RUNTIME, DISABLE_FLAG))
    found = inserted(source) if holds_any else Inserted()
    if not found.lines:
        return None
    result = Source(source.path, without(source, found))
    check_nothing_is_missing(source, result, found)
    return Rewritten(source.data, result.data, frozenset(found.numbers))


def check_nothing_is_missing(source: Source, result: Source, gone: Inserted) -> None:
    """Checks that the reverted file uses nothing that was taken out of it.

    Raises:
        CannotRemove: it does; with the line of the file as it is.
        UnsafeRewrite: it is no Python.
    """
    try:
        missing = _missing(source, result)
    except FileError as error:
        raise UnsafeRewrite(
            f"without the inserted lines the file would not be valid: {error}"
        ) from error
    if missing is not None:
        line, name = missing
        raise CannotRemove(
            f"{name} is used here, on a line that was edited or added since: "
            "take that use out by hand, then revert",
            line=_line_before(line, gone.numbers),
        )


def _missing(source: Source, result: Source) -> tuple[int, str] | None:
    """The first line of the reverted file that uses a name of the import, or a value of the flags,
    which nothing in it gives; and what it uses."""
    given = {name for node in result.nodes for name in _names_given(node)}
    namespaces = {_namespace_of(item) for item in _values_read(source)}
    found = []
    for node in result.nodes:
        if isinstance(node, ast.Name) and node.id in {ENABLE, *FLAG_NAMES} - given:
            found.append((node.lineno, node.id))
        elif isinstance(node, ast.Attribute | ast.Subscript):
            name = flag_value(node)
            own = not _flags_given(result) and name is not None
            if own and _namespace_of(node) in namespaces:
                found.append((node.lineno, str(name)))
    return min(found, default=None)


def _namespace_of(node: ast.Attribute | ast.Subscript) -> str:
    """What a value is read from, in words: `args` of `args.x` and of `vars(args)["x"]`."""
    holder = node.value
    if isinstance(holder, ast.Call) and dotted(holder.func) == "vars" and len(holder.args) == 1:
        holder = holder.args[0]
    return ast.unparse(holder)


def _names_given(node: ast.AST) -> list[str]:
    """The names that a node binds, where it can bind one of ours."""
    if isinstance(node, ast.alias):
        return [node.asname or node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    return [node.id] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else []


def _flags_given(source: Source) -> bool:
    """Whether a file has the flags' names as strings: it defines them, in whatever form."""
    flags = (DISABLE_FLAG, BLOCK_SIZE_FLAG)
    return any(isinstance(node, ast.Constant) and node.value in flags for node in source.nodes)


def _values_read(source: Source) -> list[ast.Attribute | ast.Subscript]:
    """The flags' values that are given to the patch call, as attributes or items of something."""
    calls = [node for node in source.nodes if isinstance(node, ast.Call)]
    parts = [part for call in calls if dotted(call.func) == ENABLE for part in ast.walk(call)]
    kinds = ast.Attribute | ast.Subscript
    return [part for part in parts if isinstance(part, kinds) and flag_value(part) is not None]


def _line_before(line: int, gone: set[int]) -> int:
    """The line of the file as it is that becomes `line` once those that are `gone` are out."""
    for number in sorted(gone):
        line += number <= line
    return line


@dataclass(frozen=True)
class FlagUse:
    """Whether a file defines the flags that the tool inserts, and the line of the patch call that
    reads such flags from a namespace; None if there is none."""

    given: bool
    read_at: int | None


def flag_use(source: Source) -> FlagUse:
    """How a file uses the two flags.

    Raises:
        UnreadableSource: the file can't be parsed.
    """
    if ENABLE.encode() not in source.data and DISABLE_FLAG.encode() not in source.data:
        return FlagUse(False, None)
    given = any(is_flag(item.node) for item in statements(source.tree, source.text))
    return FlagUse(given, min((part.lineno for part in _values_read(source)), default=None))
