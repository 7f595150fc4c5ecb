"""The code cells of a notebook as its JSON text writes them, and edits of their sources that keep
every other byte.

A notebook is never dumped again: the text is searched for the literals that hold a cell's source,
and only those are edited. `source` may be one string or a list of strings, whose items need not be
lines.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from flash_integrate.errors import UnreadableSource
from flash_integrate.notebook.json_text import Value, items, members, skip_space
from flash_integrate.notebook.text import Text

# What stands for one character inside a JSON string; two escapes can be the halves of one
# character.
_CHARACTER = re.compile(r"\\u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|\\u\w{4}|\\.|.")
# Python converts no more digits to a number.
_LONG_NUMBER = re.compile(r"\d{4301}")
# Lines as Python counts them, with their endings.
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


@dataclass(frozen=True)
class Change:
    """A piece of the notebook's text and what takes its place."""

    start: int
    end: int
    text: str = ""


@dataclass(frozen=True, eq=False)
class Cell:
    """A code cell; `number` counts the notebook's cells from 1, `literals` are the strings that
    make up its source."""

    number: int
    text: Text
    literals: list[Value]
    is_list: bool

    @cached_property
    def source(self) -> str:
        return "".join(literal.decoded for literal in self.literals)

    @cached_property
    def lines(self) -> list[str]:
        return _LINE.findall(self.source)

    def text_line(self, index: int) -> int:
        """The line of the notebook's text (from 1) on which the cell's line `index` (from 0)
        starts."""
        offset = self._line_offsets[index] if index < len(self._line_offsets) else 0
        at = bisect_right(self._literal_offsets, offset) - 1
        return self.text.line_of(self.literals[at].start if self.literals else 0)

    def insert(self, index: int, code: str) -> Change:
        """The edit that puts lines below the first `index` lines, of which there is at least one.

        In a list of lines they become items, set off like the list's own; elsewhere they are
        written into the literal.
        """
        above = "".join(self.lines[:index])
        newline = "\r\n" if "\r\n" in self.source else "\n"
        code = code.replace("\n", newline)
        if not above.endswith(("\r", "\n")):
            code = newline + code.removesuffix(newline)
        starts = zip(self.literals, self._literal_offsets, strict=True)
        literal, start = next(
            (item, at) for item, at in starts if at + len(item.decoded) >= len(above)
        )
        if not self.is_list or start + len(literal.decoded) > len(above):
            position = self._positions(literal)[len(above) - start]
            return Change(position, position, json.dumps(code)[1:-1])
        lines = _LINE.findall(code)
        ending = "" if above.endswith(("\r", "\n")) else lines.pop(0)
        below = "".join(f"{self._separator()}{json.dumps(line)}" for line in lines)
        return Change(literal.end - 1, literal.end, f'{json.dumps(ending)[1:-1]}"{below}')

    def remove(self, indices: set[int]) -> list[Change]:
        """The edits that take lines out; a last line that had no newline leaves none behind."""
        gone: set[int] = set()
        offset, kept = 0, range(0)
        for index, line in enumerate(self.lines):
            body = len(line.rstrip("\r\n"))
            if index in indices:
                gone.update(range(offset, offset + len(line)))
                if body == len(line):
                    gone.update(kept)
            else:
                kept = range(offset + body, offset + len(line))
            offset += len(line)
        return self._remove_characters(gone)

    def _remove_characters(self, gone: set[int]) -> list[Change]:
        """Items that lose every character go with the separator before them; the others lose the
        characters alone."""
        dropped: set[int] = set()
        edits: list[Change] = []
        for index, (literal, start) in enumerate(
            zip(self.literals, self._literal_offsets, strict=True)
        ):
            mine = [offset for offset in range(len(literal.decoded)) if start + offset in gone]
            if self.is_list and mine and len(mine) == len(literal.decoded):
                dropped.add(index)
            elif mine:
                positions = self._positions(literal)
                edits += [Change(positions[offset], positions[offset + 1]) for offset in mine]
        kept = next((index for index in range(len(self.literals)) if index not in dropped), None)
        if kept is None:
            return [Change(self.literals[0].start, self.literals[-1].end)] if dropped else []
        if kept:  # what separates the first item from the next goes with it
            edits.append(Change(self.literals[0].start, self.literals[kept].start))
        behind = (index for index in sorted(dropped) if index > kept)
        edits += [
            Change(self.literals[index - 1].end, self.literals[index].end) for index in behind
        ]
        return edits

    @cached_property
    def _literal_offsets(self) -> list[int]:
        """For each literal the number of the source's characters before it."""
        return _offsets(literal.decoded for literal in self.literals)

    @cached_property
    def _line_offsets(self) -> list[int]:
        """For each line the number of the source's characters before it."""
        return _offsets(self.lines)

    def _positions(self, literal: Value) -> list[int]:
        """Where each character of a literal stands in the text, and its closing quote."""
        inner = _CHARACTER.finditer(self.text.text, literal.start + 1, literal.end - 1)
        return [*(match.start() for match in inner), literal.end - 1]

    def _separator(self) -> str:
        first, text = self.literals[0], self.text.text
        if len(self.literals) > 1:
            return text[first.end : self.literals[1].start]
        return "," + text[text.rindex("[", 0, first.start) + 1 : first.start]


@dataclass(frozen=True)
class Notebook:
    """A notebook file; `path` is what the user calls it."""

    path: Path
    data: bytes

    @cached_property
    def lined(self) -> Text:
        """The text with its lines."""
        return Text(self.text)

    @cached_property
    def text(self) -> str:
        """The decoded text.

        Raises:
            UnreadableSource: the bytes are not UTF-8, as notebooks have to be.
        """
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            line = self.data.count(b"\n", 0, error.start) + 1
            raise UnreadableSource(f"not valid utf-8: {error.reason}", line=line) from error

    @cached_property
    def _root(self) -> Value:
        try:
            root = Value(json.loads(self.text), skip_space(self.text, 0), len(self.text))
        except json.JSONDecodeError as error:
            raise UnreadableSource(f"not a notebook: {error.msg}", line=error.lineno) from error
        except RecursionError as error:
            raise UnreadableSource(
                "not a notebook: nested too deeply to be parsed", line=1
            ) from error
        except ValueError as error:
            long = _LONG_NUMBER.search(self.text)
            line = self.lined.line_of(long.start() if long else 0)
            raise UnreadableSource(
                "not a notebook: a number has too many digits", line=line
            ) from error
        if not isinstance(root.decoded, dict) or not isinstance(root.decoded.get("nbformat"), int):
            raise UnreadableSource("not a notebook: it states no nbformat", line=1)
        return root

    @property
    def format(self) -> int:
        """The major version of the notebook's format.

        Raises:
            UnreadableSource: the file is no notebook.
        """
        version: int = self._root.decoded["nbformat"]
        return version

    @property
    def language(self) -> str:
        """The language of the notebook's kernel; Python where it states none.

        Raises:
            UnreadableSource: the file is no notebook.
        """
        metadata = _as_object(self._root.decoded.get("metadata"))
        stated = _as_object(metadata.get("language_info")).get("name")
        return str(stated or _as_object(metadata.get("kernelspec")).get("language") or "python")

    @cached_property
    def cells(self) -> list[Cell]:
        """The code cells of a notebook of format 4, in order.

        Raises:
            UnreadableSource: the file is no notebook, or a cell has no source.
        """
        found = []
        cells = members(self.text, self._root).get("cells")
        if cells is None or not isinstance(cells.decoded, list):
            raise UnreadableSource("not a notebook: it has no list of cells", line=1)
        for number, cell in enumerate(items(self.text, cells), start=1):
            if _as_object(cell.decoded).get("cell_type") == "code":
                found.append(self._cell(number, cell))
        return found

    def _cell(self, number: int, cell: Value) -> Cell:
        source = members(self.text, cell).get("source")
        is_list = source is not None and isinstance(source.decoded, list)
        literals = items(self.text, source) if source is not None and is_list else [source]
        strings = [
            literal
            for literal in literals
            if literal is not None and isinstance(literal.decoded, str)
        ]
        if len(strings) < len(literals):
            raise UnreadableSource(
                f"cell {number} has no source", line=self.lined.line_of(cell.start)
            )
        return Cell(number, self.lined, strings, is_list)

    def edited(self, edits: Iterable[Change]) -> bytes:
        """The notebook's bytes with the edits made, which do not overlap."""
        parts, position = [], 0
        for edit in sorted(edits, key=lambda edit: edit.start):
            parts += [self.text[position : edit.start], edit.text]
            position = edit.end
        return "".join([*parts, self.text[position:]]).encode()


def _offsets(parts: Iterable[str]) -> list[int]:
    """For each part of a text the number of characters before it."""
    return [0, *accumulate(map(len, parts))][:-1]


def _as_object(decoded: object) -> dict[str, Any]:
    return decoded if isinstance(decoded, dict) else {}
