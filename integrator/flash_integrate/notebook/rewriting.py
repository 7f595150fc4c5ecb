"""Edits of a notebook: what is inserted into the script of its cells goes into the cell's source,
in the notebook's own JSON text; and the way back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flash_integrate.errors import CannotRemove, FileError, UnsafeRewrite
from flash_integrate.inserted.presence import integrated_at
from flash_integrate.inserted.removal import inserted
from flash_integrate.inserted.revert import check_nothing_is_missing
from flash_integrate.inserted.snippets import RUNTIME
from flash_integrate.notebook.cells import Cell, Change, Notebook
from flash_integrate.notebook.program import Program
from flash_integrate.python.edits import Insertion, Rewritten
from flash_integrate.python.module import Module
from flash_integrate.python.syntax import Statement


def rewrite_notebook(program: Program, edits: Sequence[tuple[Statement, Insertion]]) -> Rewritten:
    """A notebook with code below statements of its cells.

    Raises:
        UnsafeRewrite: the result is no notebook whose cells are Python, would be changed again, or
            is more than the original and what was inserted.
    """
    notebook = program.notebook
    changes = []
    for statement, edit in edits:
        origin = program.origins[(statement.node.end_lineno or statement.line) - 1]
        if origin is None:
            raise UnsafeRewrite("the place to insert at is in no cell")
        changes.append(origin[0].insert(origin[1] + 1, edit.code))
    after = Notebook(notebook.path, notebook.edited(changes))
    _verify(notebook, after)
    lines = frozenset[int]().union(
        *(after.lined.lines_begun(item.start, item.start + len(item.text)) for item in changes)
    )
    return Rewritten(notebook.data, after.data, lines)


def revert_notebook(notebook: Notebook) -> Rewritten | None:
    """A notebook without what the tool put into it; None if there is nothing of it.

    Raises:
        UnreadableSource: the file is no notebook, or a cell that names MLX is no Python.
        CannotRemove: an inserted statement now shares a line with another one, or a line that was
            edited since would use what is gone.
        UnsafeRewrite: a cell would not be Python without the inserted lines.
    """
    if RUNTIME.encode() not in notebook.data:
        return None
    program = Program.of(notebook)
    changes = _removals(program)
    if not changes:
        return None
    result = Notebook(notebook.path, notebook.edited(changes))
    try:
        rest = Program.of(result)
    except FileError as error:
        raise UnsafeRewrite(
            f"without the inserted lines the notebook would not be valid: {error}"
        ) from error
    if len(rest.broken) > len(program.broken):
        raise UnsafeRewrite(
            f"without the inserted lines a cell would not be valid: {rest.broken[0].reason}"
        )
    with _lines_of_the_notebook(program):
        check_nothing_is_missing(program, rest, inserted(program))
    lines = frozenset[int]().union(
        *(notebook.lined.lines_begun(item.start, item.end) for item in changes)
    )
    return Rewritten(notebook.data, result.data, lines)


def _removals(program: Program) -> list[Change]:
    with _lines_of_the_notebook(program):
        numbers = inserted(program).lines
    by_cell: dict[Cell, set[int]] = {}
    for origin in (program.origins[number - 1] for number in numbers):
        if origin is not None:
            by_cell.setdefault(origin[0], set()).add(origin[1])
    return [change for cell, indices in by_cell.items() for change in cell.remove(indices)]


@contextmanager
def _lines_of_the_notebook(program: Program) -> Iterator[None]:
    """Counts the line of an error in the notebook's text."""
    try:
        yield
    except CannotRemove as error:
        raise CannotRemove(str(error), line=program.shown_line(error.line)) from error


def _verify(before: Notebook, after: Notebook) -> None:
    try:
        program = Program.of(after)
        is_integrated = integrated_at(Module(program)) is not None
        reverted = after.edited(_removals(program))
    except FileError as error:
        raise UnsafeRewrite(f"the rewritten notebook would not be valid: {error}") from error
    if not is_integrated:
        raise UnsafeRewrite("a second run would change the rewritten notebook again")
    if reverted != before.data:
        raise UnsafeRewrite("taking the inserted lines out again would not give back the original")
