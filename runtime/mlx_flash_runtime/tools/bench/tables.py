"""Results as tables of text, made once for the terminal, Markdown and HTML alike; and as JSON and
CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .machine import described

Row = dict[str, Any]
KINDS = ("grid", "workflow", "compare")


@dataclass(frozen=True)
class Document:
    """The result of one command. `findings` say in sentences what the numbers come to,
    `definitions` what the words in the tables mean."""

    kind: str
    title: str
    command: str
    machine: dict[str, Any]
    definitions: tuple[str, ...]
    rows: list[Row]
    summary: list[Row]
    findings: tuple[str, ...] = ()

    def as_json(self) -> str:
        """`vars(self)` as JSON; NaN, which JSON has no word for, as null."""
        return json.dumps(_without_nan(vars(self)), indent=1) + "\n"

    def as_csv(self) -> str:
        """The rows with all their numbers, and with the machine and the versions in the last
        columns."""
        file = io.StringIO()
        rows = [row | self.machine for row in self.rows]
        columns: dict[str, None] = {}
        for row in rows:
            columns |= dict.fromkeys(row)
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return file.getvalue()


class NotAResult(Exception):
    """A file that holds no result of this package; the message names it and says why."""


def load(path: Path) -> Document:
    """Reads what `as_json` wrote. Raises NotAResult."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotAResult(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # the second of lists in lists without end
        raise NotAResult(f"{path} is not JSON: {error}") from error
    return document_of(data, path)


def document_of(data: Any, path: Path) -> Document:
    """What `as_json` wrote, parsed, of the file at `path`. Raises NotAResult."""
    if not _has_fields(data):
        raise NotAResult(
            f"{path} is not a result of mlx-flash bench or mlx-flash compare, written with --json"
        )
    return Document(
        **{**data, "definitions": tuple(data["definitions"]), "findings": tuple(data["findings"])}
    )


def _has_fields(data: Any) -> bool:
    """Whether they are a Document's, its lists are lists, and its kind is known; what is in the
    lists is not asked."""
    if not isinstance(data, dict) or sorted(data) != sorted(Document.__dataclass_fields__):
        return False
    lists = ("rows", "summary", "definitions", "findings")
    return data["kind"] in KINDS and all(isinstance(data[key], list) for key in lists)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Column:
    """One column: a heading, how the cell is made of a row, and whether it holds words, which
    stand to the left."""

    heading: str
    cell: Callable[[Row], str]
    words: bool = False


def number(key: str, heading: str, digits: int | None = None) -> Column:
    """A number as it is, or with so many decimals; `-` where there is none."""

    def cell(row: Row) -> str:
        value = row.get(key)
        if value is None:
            return "-"
        if digits is not None:
            return f"{value:,.{digits}f}"
        return f"{value:,}" if isinstance(value, int) else f"{value:,.10g}"

    return Column(heading, cell)


def text(key: str, heading: str) -> Column:
    """The value as text; `-` where there is none, and for what is off."""
    return Column(heading, lambda row: str(row.get(key) or "-"), words=True)


@dataclass(frozen=True)
class Table:
    """Headings and cells as text; for each column whether it holds words. The first `keys` columns
    name the rows; `bad` are the numbers of those that are wrong."""

    title: str
    headings: list[str]
    words: list[bool]
    cells: list[list[str]]
    keys: int = 1
    bad: frozenset[int] = frozenset()

    def as_markdown(self) -> str:
        rule = "|".join("---" if words else "--:" for words in self.words)
        lines = [f"| {' | '.join(self.headings)} |", f"|{rule}|"]
        for row in self.cells:
            cells = [cell.replace("|", "\\|") for cell in row]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)


def make_table(
    title: str,
    columns: Sequence[Column],
    rows: Sequence[Row],
    bad: Sequence[int] = (),
    keys: int = 1,
) -> Table:
    """The cells of every row."""
    cells = [[column.cell(row) for column in columns] for row in rows]
    headings, words = [column.heading for column in columns], [column.words for column in columns]
    return Table(title, headings, words, cells, keys, frozenset(bad))


def varying(columns: dict[str, Column], rows: Sequence[Row]) -> tuple[list[Column], str]:
    """The columns whose values differ between rows, and the others in words, as `heads 8, dtype
    float32`."""
    kept, constant = [], []
    for key, column in columns.items():
        values = {str(row[key]) for row in rows}
        if len(values) > 1:
            kept.append(column)
        elif rows and column.cell(rows[0]) != "-":
            constant.append(f"{column.heading} {column.cell(rows[0])}")
    return kept, ", ".join(constant)


def as_markdown(document: Document, tables: Sequence[Table]) -> str:
    """Title, machine, tables, findings, definitions."""
    parts = [f"## {document.title}", described(document.machine), f"`{document.command}`"]
    for table in tables:
        if table.title:
            parts.append(f"**{table.title}**")
        parts.append(table.as_markdown())
    parts += document.findings
    parts.append("\n".join(f"- {definition}" for definition in document.definitions))
    return "\n\n".join(parts) + "\n"
