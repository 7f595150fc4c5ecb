"""Notebooks: the runtime's import and the call go right below the imports of the first cell that
imports MLX.

A notebook is judged as the script that its code cells make, one below the other, without what only
IPython understands. Edited is that one cell's source, in the notebook's own JSON text.
"""

from __future__ import annotations

import ast
import dataclasses
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from flash_integrate.attention.reach import holds_models
from flash_integrate.errors import CannotRemove, FileError, UnreadableSource, UnsafeRewrite
from flash_integrate.inserted.removal import inserted, leftovers
from flash_integrate.inserted.snippets import ENABLE, RUNTIME, enable_call, runtime_import
from flash_integrate.notebook.cells import Cell, Edit, Notebook
from flash_integrate.notebook.magics import as_python
from flash_integrate.planning.codemod import Refusal
from flash_integrate.planning.plan import Decision, Status, handwritten, left_alone, spawning
from flash_integrate.project.file_facts import FileFacts
from flash_integrate.project.imports import Scan
from flash_integrate.project.kinds import skip_by_name
from flash_integrate.project.workspace import Workspace
from flash_integrate.python.source import Source

SUFFIX = ".ipynb"
NAME = "notebook"
SUMMARY = "import and call below the imports of the first cell that imports MLX"
REVIEW = "the cell that imports MLX runs before any cell that runs the model"
_OLDEST_FORMAT = 4


@dataclass(frozen=True)
class Rewritten:
    """A file's bytes before and after, and the numbers of the lines that it has more or, after a
    revert, less.

    There are none where the change is a part of a line: a cell's source that is written as one
    string.
    """

    before: bytes = field(repr=False)
    after: bytes = field(repr=False)
    lines: frozenset[int]
    notes: tuple[Refusal, ...] = ()


@dataclass(frozen=True)
class Program:
    """The script that a notebook's code cells make.

    `origins` says for each of its lines the cell and the line in it (from 0); None for the
    comments above the cells. `broken` are the cells that are no Python. They are left blank.
    """

    source: Source
    origins: tuple[tuple[Cell, int] | None, ...]
    broken: tuple[Refusal, ...]

    @staticmethod
    def of(notebook: Notebook) -> Program:
        """Puts the cells of a notebook together.

        Raises:
            UnreadableSource: the file is no notebook, or a cell that names MLX is no Python.
        """
        # Comments keep the cells apart for `inserted`; below them no line can be a coding cookie.
        lines, origins, broken = ["# a notebook"], list[tuple[Cell, int] | None]([None]), []
        for cell in notebook.cells:
            try:
                python = as_python(cell.lines)
            except UnreadableSource as error:
                line = cell.text_line((error.line or 1) - 1)
                if "mlx" in cell.source or ENABLE in cell.source:
                    raise UnreadableSource(f"cell {cell.number}: {error}", line=line) from error
                broken.append(
                    Refusal(f"cell {cell.number} was not looked at, it is no Python: {error}", line)
                )
                python = [""] * len(cell.lines)
            lines += [f"# cell {cell.number}", *python]
            origins += [None, *((cell, index) for index in range(len(python)))]
        data = "\n".join([*lines, ""]).encode(errors="replace")
        return Program(Source(notebook.path, data), tuple(origins), tuple(broken))

    def only(self, cell: Cell) -> Source:
        """The program with every other cell left blank."""
        lines = zip(self.source.lines(), self.origins, strict=True)
        mine = (
            line if origin is not None and origin[0] is cell else b"\n" for line, origin in lines
        )
        return Source(self.source.path, b"".join(mine))

    def text_line(self, line: int | None) -> int | None:
        """The line of the notebook's text on which a line of the program stands."""
        origin = self.origins[line - 1] if line else None
        return origin[0].text_line(origin[1]) if origin is not None else None


def scan_notebook(notebook: Notebook) -> Scan:
    """The first look at a notebook: that of the script that its cells make.

    Raises:
        UnreadableSource: the file names MLX, and is no notebook or has a cell that names MLX and
            is no Python.
    """
    try:
        if _refusal(notebook) is None:
            return Scan.of(Program.of(notebook).source.data)
    except UnreadableSource:
        if b"mlx" in notebook.data:  # else nobody needs to know, as with a broken script
            raise
    return Scan.of(notebook.data)


def plan_notebook(notebook: Notebook, name: PurePosixPath, workspace: Workspace) -> Decision:
    """The decision on a notebook that reaches MLX, `name` being its path as shown. Argparse is not
    looked for.

    Raises:
        UnreadableSource: the file is no notebook, or a cell that names MLX is no Python.
    """
    if (refusal := skip_by_name(name) or _refusal(notebook)) is not None:
        return Decision(Status.SKIPPED, refusal)
    program = Program.of(notebook)
    facts = FileFacts(name, program.source, workspace)
    if facts.integrated_at is not None:
        return Decision(
            Status.INTEGRATED, "imports the runtime", program.text_line(facts.integrated_at)
        )
    if (left := left_alone(facts)) is not None:
        return Decision(Status.SKIPPED, left.reason, program.text_line(left.line))
    if facts.reached is None:
        return Decision(Status.SKIPPED, "no attention is reached from it")
    if not workspace.wants(NAME):
        return Decision(Status.SKIPPED, "a notebook, and those are not asked for")
    if _import_cell(program) is None:
        return Decision(Status.SKIPPED, "no cell imports anything")
    of_script = (*handwritten(facts), *spawning(facts))
    notes = (
        *program.broken,
        *(dataclasses.replace(note, line=program.text_line(note.line)) for note in of_script),
    )
    return Decision(Status.CHANGED, facts.reached, codemod=NAME, review=REVIEW, notes=notes)


def rewrite_notebook(notebook: Notebook, name: PurePosixPath, workspace: Workspace) -> Rewritten:
    """A notebook for which the plan is `CHANGED`, with the import and the call in it.

    Raises:
        UnsafeRewrite: the result is no notebook whose cells are Python, would be changed again, or
            is more than the original and what was inserted.
    """
    program = Program.of(notebook)
    facts = FileFacts(name, program.source, workspace)
    cell = _import_cell(program)
    if cell is None:
        raise UnsafeRewrite("no cell imports anything")
    line = _last_import(dataclasses.replace(facts, source=program.only(cell)))
    above = [
        origin[1] for origin in program.origins[:line] if origin is not None and origin[0] is cell
    ]
    code = "\n" + runtime_import(call=True, flags=False) + enable_call()
    edit = cell.insert(len(above), code)
    after = Notebook(notebook.path, notebook.edited([edit]))
    _verify(notebook, after, name, workspace)
    lines = after.lined.lines_begun(edit.start, edit.start + len(edit.replacement))
    return Rewritten(notebook.data, after.data, frozenset(lines))


def revert_notebook(notebook: Notebook) -> Rewritten | None:
    """A notebook without what the tool put into it; None if there is nothing of it.

    Raises:
        UnreadableSource: the file is no notebook, or a cell that names MLX is no Python.
        CannotRemove: an inserted statement now shares a line with another one.
        UnsafeRewrite: a cell would not be Python without the inserted lines.
    """
    if RUNTIME.encode() not in notebook.data or _refusal(notebook) is not None:
        return None
    program = Program.of(notebook)
    edits = _removals(program)
    if not edits:
        return None
    result = Notebook(notebook.path, notebook.edited(edits))
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
    notes = (
        Refusal(f"still uses {name}", rest.text_line(line)) for line, name in leftovers(rest.source)
    )
    lines = frozenset[int]().union(
        *(notebook.lined.lines_begun(edit.start, edit.end) for edit in edits)
    )
    return Rewritten(notebook.data, result.data, lines, tuple(notes))


def _refusal(notebook: Notebook) -> str | None:
    """Why a notebook's cells are not read."""
    if notebook.format < _OLDEST_FORMAT:
        return (
            f"a notebook of format {notebook.format}; Jupyter turns it into format {_OLDEST_FORMAT}"
        )
    if notebook.language.lower() not in ("python", "ipython"):
        return f"a notebook in {notebook.language}"
    return None


def _import_cell(program: Program) -> Cell | None:
    """The first cell that imports MLX or a package for it; where a local module does that, the
    first that imports."""
    imports = [
        node for node in program.source.nodes if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    imports.sort(key=lambda node: node.lineno)
    with_mlx = [
        node
        for node in imports
        if any(name == "mlx" or holds_models(name) for name in _packages(node))
    ]
    first = next(iter(with_mlx or imports), None)
    origin = program.origins[first.lineno - 1] if first is not None else None
    return origin[0] if origin is not None else None


def _packages(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The packages that a statement imports; a relative import counts as one without a name."""
    names = (
        [alias.name for alias in node.names]
        if isinstance(node, ast.Import)
        else [node.module or ""]
    )
    return [name.partition(".")[0] for name in names]


def _last_import(facts: FileFacts) -> int:
    """The line that ends the imports at the start of the one cell that `facts` are of.

    Where a cell works before it imports, or imports under `try`, that is the statement which holds
    the first import.
    """
    statements = facts.module_level
    anchor = facts.import_anchor
    if anchor is None:
        kinds = ast.Import | ast.ImportFrom
        holds = (
            any(isinstance(node, kinds) for node in ast.walk(statement.node))
            for statement in statements
        )
        first = next(index for index, imports in enumerate(holds) if imports)
        anchor = next(
            index for index in range(first, len(statements)) if statements[index].ends_its_line
        )
    node = statements[anchor].node
    return node.end_lineno or node.lineno


def _removals(program: Program) -> list[Edit]:
    try:
        numbers = inserted(program.source).lines
    except CannotRemove as error:
        raise CannotRemove(str(error), line=program.text_line(error.line)) from error
    by_cell: dict[Cell, set[int]] = {}
    for cell, index in (
        origin for number in numbers if (origin := program.origins[number - 1]) is not None
    ):
        by_cell.setdefault(cell, set()).add(index)
    return [edit for cell, indices in by_cell.items() for edit in cell.remove(indices)]


def _verify(before: Notebook, after: Notebook, name: PurePosixPath, workspace: Workspace) -> None:
    try:
        again = plan_notebook(after, name, workspace)
        reverted = revert_notebook(after)
    except FileError as error:
        raise UnsafeRewrite(f"the rewritten notebook would not be valid: {error}") from error
    if again.status is not Status.INTEGRATED:
        raise UnsafeRewrite("a second run would change the rewritten notebook again")
    if reverted is None or reverted.after != before.data:
        raise UnsafeRewrite("taking the inserted lines out again would not give back the original")
