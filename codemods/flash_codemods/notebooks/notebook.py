"""Notebooks: the runtime's import and the call go right below the imports of the first cell that
imports MLX.

Inserts: the import and the call, without flags: `MLX_FLASH_DISABLE` and `MLX_FLASH_BLOCK_SIZE` do
what flags would.

Refuses: notebooks of an old format or in another language, and those in which nothing is imported.
"""

from __future__ import annotations

import ast

from flash_integrate.attention.libraries import holds_models
from flash_integrate.attention.signs import reached
from flash_integrate.inserted.snippets import Style, enable
from flash_integrate.notebook.program import Program
from flash_integrate.notes import Note, Refusal
from flash_integrate.planning.starts import Starts
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.edits import Insertion
from flash_integrate.python.module import Imported
from flash_integrate.python.syntax import Statement

ORDER = 40
SUFFIX = ".ipynb"
SUMMARY = "import and call below the imports of the first cell that imports MLX"
REVIEW = "the cell that imports MLX runs before any cell that runs the model"


def match(facts: FileFacts) -> Statement | Refusal | None:
    """The statement below which the runtime's import goes."""
    program = facts.source
    if not isinstance(program, Program):
        return None
    if program.refusal is not None:
        return Refusal(program.refusal)
    if not facts.get(reached):
        return Refusal("no attention is reached from it")
    imports = sorted(facts.module.imports, key=lambda item: item.line)
    first = next(iter([*filter(_is_of_mlx, imports), *imports]), None)
    if first is None:
        return Refusal("no cell imports anything")
    cell = program.lines_of_cell(first.line)
    inside = [item for item in facts.module.top if item.line in cell]
    return facts.get(Starts).last_import(inside) or _first_import(inside)


def edit(facts: FileFacts, match: Statement) -> list[Insertion]:
    code = "\n" + enable(Style(), 0)
    return [Insertion(match.steps, code)]


def notes(facts: FileFacts, match: Statement) -> tuple[Note, ...]:
    return facts.source.broken if isinstance(facts.source, Program) else ()


def _is_of_mlx(item: Imported) -> bool:
    return item.package == "mlx" or holds_models(item.package)


def _first_import(statements: list[Statement]) -> Statement:
    """Where a cell works before it imports, or imports under `try`: the statement that holds the
    first import, or the next one that ends its line."""
    kinds = ast.Import | ast.ImportFrom
    for index, statement in enumerate(statements):
        if any(isinstance(node, kinds) for node in ast.walk(statement.node)):
            return next(item for item in statements[index:] if item.ends_its_line)
    raise AssertionError("the cell was chosen for its import")
