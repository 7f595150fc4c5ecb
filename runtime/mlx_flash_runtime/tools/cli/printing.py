"""Results on the terminal: a table that is too wide goes on below, so that no number is ever
cut."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from ..bench.machine import described
from ..bench.tables import Document, Table
from .plain_text import as_written

_GAP = "  "


def console_of_stdout() -> Console:
    """As wide as the terminal; where there is none, lines are as long as they are."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def print_tables(document: Document, tables: Sequence[Table], verbose: bool) -> None:
    """Title, machine, tables and findings on stdout; if `verbose`, what the words in them mean."""
    console = console_of_stdout()
    width = console.width if sys.stdout.isatty() else None
    console.print(Text(document.title, "bold"))
    console.print(Text(described(document.machine), "dim"))
    for table in tables:
        if table.title:
            console.print()
            console.print(Text(table.title))
        for part in parts_of(table, width):
            console.print()
            for line in part:
                console.print(line, soft_wrap=True)
    console.print()
    for finding in document.findings:
        console.print(Text(finding, "bold"))
    if verbose:
        for definition in document.definitions:
            console.print(Text(definition, "dim"))
    else:
        console.print(Text("-v says what the words mean and how it was measured", "dim"))


def parts_of(table: Table, width: int | None) -> Iterator[list[Text]]:
    """The lines of a table; where it is wider than `width`, those of its parts, each with the
    columns that name the rows and as many others as fit."""
    lines = [[as_written(cell) for cell in cells] for cells in (table.headings, *table.cells)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for columns in _columns_of_parts(widths, table.keys, width):
        texts = [_line(cells, table.words, widths, columns) for cells in lines]
        rule = _GAP.join("─" * widths[column] for column in columns)
        styles = ["bold red" if row in table.bad else "" for row in range(len(table.cells))]
        yield [Text(texts[0], "bold"), Text(rule, "dim"), *map(Text, texts[1:], styles)]


def _columns_of_parts(widths: Sequence[int], keys: int, width: int | None) -> Iterator[list[int]]:
    part = list(range(keys))
    for column in range(keys, len(widths)):
        taken = sum(widths[each] + len(_GAP) for each in part)
        if width is not None and len(part) > keys and taken + widths[column] > width:
            yield part
            part = list(range(keys))
        part.append(column)
    yield part


def _line(
    cells: Sequence[str], words: Sequence[bool], widths: Sequence[int], columns: Sequence[int]
) -> str:
    aligned = (
        cells[i].ljust(widths[i]) if words[i] else cells[i].rjust(widths[i]) for i in columns
    )
    return _GAP.join(aligned).rstrip()
