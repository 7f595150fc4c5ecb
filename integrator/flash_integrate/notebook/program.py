"""The script that the code cells of a notebook make, one below the other, without what only IPython
understands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from flash_integrate.errors import UnreadableSource
from flash_integrate.inserted.snippets import ENABLE
from flash_integrate.notebook.cells import Cell, Notebook
from flash_integrate.notebook.magics import as_python
from flash_integrate.notes import Note
from flash_integrate.python.source import Source

SUFFIX = ".ipynb"
_OLDEST_FORMAT = 4


@dataclass(frozen=True)
class Program(Source):
    """A notebook as a source like any other.

    `origins` says for each of its lines the cell and the line in it (from 0); None for the
    comments above the cells. `broken` are the cells that are no Python: they are left blank.
    `refusal` is why the cells are not read at all.
    """

    notebook: Notebook = field(kw_only=True, repr=False)
    origins: tuple[tuple[Cell, int] | None, ...] = field(kw_only=True, default=(), repr=False)
    broken: tuple[Note, ...] = field(kw_only=True, default=())
    refusal: str | None = field(kw_only=True, default=None)

    @staticmethod
    def of(notebook: Notebook) -> Program:
        """Puts the cells of a notebook together.

        Raises:
            UnreadableSource: the file is no notebook, or a cell that names MLX is no Python.
        """
        if (refusal := _refusal(notebook)) is not None:
            return Program(notebook.path, b"", notebook=notebook, refusal=refusal)
        # Comments keep the cells apart for `inserted`; below them no line can be a coding cookie.
        lines = ["# a notebook"]
        origins: list[tuple[Cell, int] | None] = [None]
        broken: list[Note] = []
        for cell in notebook.cells:
            try:
                python = as_python(cell.lines)
            except UnreadableSource as error:
                at = error.line or 1
                if "mlx" in cell.source or ENABLE in cell.source:
                    line = cell.text_line(at - 1)
                    raise UnreadableSource(f"cell {cell.number}: {error}", line=line) from error
                reason = f"cell {cell.number} was not looked at, it is no Python: {error}"
                broken.append(Note(reason, len(lines) + 1 + at))
                python = [""] * len(cell.lines)
            lines += [f"# cell {cell.number}", *python]
            origins += [None, *((cell, index) for index in range(len(python)))]
        data = "\n".join([*lines, ""]).encode(errors="replace")
        return Program(
            notebook.path, data, notebook=notebook, origins=tuple(origins), broken=tuple(broken)
        )

    def shown_line(self, line: int | None) -> int | None:
        """The line of the notebook's text on which a line of the program stands."""
        origin = self.origins[line - 1] if line else None
        return origin[0].text_line(origin[1]) if origin is not None else None

    def written(self) -> Iterator[tuple[int, str]]:
        """The lines of the program, by number, as they are written in the notebook."""
        for line, origin in enumerate(self.origins, 1):
            if origin is not None:
                cell, index = origin
                yield line, cell.lines[index]

    def lines_of_cell(self, line: int) -> range:
        """The lines of the cell in which a line stands."""
        first = last = line
        while self.origins[first - 2] is not None:
            first -= 1
        while last < len(self.origins) and self.origins[last] is not None:
            last += 1
        return range(first, last + 1)


def scanned(notebook: Notebook) -> bytes:
    """What a first look at a notebook is to see: its program, or its text if that is not read.

    Raises:
        UnreadableSource: the file names MLX, and is no notebook or has a cell that names MLX and
            is no Python.
    """
    try:
        program = Program.of(notebook)
    except UnreadableSource:
        if b"mlx" in notebook.data:  # else nobody needs to know, as with a broken script
            raise
        return notebook.data
    return notebook.data if program.refusal else program.data


def _refusal(notebook: Notebook) -> str | None:
    """Why a notebook's cells are not read."""
    if notebook.format < _OLDEST_FORMAT:
        return (
            f"a notebook of format {notebook.format}; Jupyter turns it into format {_OLDEST_FORMAT}"
        )
    if notebook.language.lower() not in ("python", "ipython"):
        return f"a notebook in {notebook.language}"
    return None
