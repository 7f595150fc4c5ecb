"""One scanned base folder: its files, what they define and import, and what is known of each.
Whoever knows more of files than that asks for an analysis of its own."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from flash_integrate.disk.checkout import checkout_of
from flash_integrate.errors import FileError
from flash_integrate.inserted.snippets import Style
from flash_integrate.project.imports import Project
from flash_integrate.project.line_width import line_width
from flash_integrate.project.names import Names
from flash_integrate.project.scan import Scan
from flash_integrate.project.style import style_of
from flash_integrate.python.module import Module
from flash_integrate.python.source import Source
from flash_integrate.python.syntax import Function, Statement, Steps, guarded_suite, is_docstring

_KEPT = 4 << 20
"""Bytes of source of the files that are kept at a time, with tree and facts: those take about
thirty times as much memory, which for all files would be too much."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class InsertionPoint:
    """A place for new lines: before or after a statement, which starts at `column`; `is_apart`
    from what stands above, by a blank line."""

    anchor: Steps
    before: bool
    column: int
    is_apart: bool = False

    @staticmethod
    def beside(statement: Statement, *, before: bool, is_apart: bool = False) -> InsertionPoint:
        return InsertionPoint(statement.steps, before, statement.node.col_offset, is_apart)


@dataclass(frozen=True)
class FileFacts:
    """A file of a workspace, `name` being its path as shown."""

    name: PurePosixPath
    source: Source
    workspace: Workspace = field(repr=False)
    _found: dict[Callable[..., Any], Any] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def get(self, analysis: Callable[[FileFacts], Found]) -> Found:
        """What an analysis finds in this file: asked for by itself, and made once."""
        if analysis not in self._found:
            known = self.workspace.known.get((self.name, analysis))
            self._found[analysis] = analysis(self) if known is None else known
        found: Found = self._found[analysis]
        return found

    def forget(self) -> None:
        """Lets go of what analyses found in this file."""
        self._found.clear()

    @cached_property
    def module(self) -> Module:
        return Module(self.source)

    @property
    def tree(self) -> ast.Module:
        return self.source.tree

    @property
    def statements(self) -> list[Statement]:
        return self.module.statements

    @property
    def module_level(self) -> list[Statement]:
        return self.module.top

    @property
    def is_imported(self) -> bool:
        return self.name in self.workspace.project.importers

    @cached_property
    def suites(self) -> dict[tuple[Steps, str], list[Statement]]:
        """The statements of each suite, by the steps to its header and the suite's field."""
        found: dict[tuple[Steps, str], list[Statement]] = {}
        for item in self.statements:
            *header, (suite, _) = item.steps
            found.setdefault((tuple(header), suite), []).append(item)
        return found

    def first_line_of(self, header: Statement) -> InsertionPoint | None:
        """The insertion point below a header and its docstring, if there is one; None where no line
        can go there."""
        suite = guarded_suite(header.node) or "body"
        inner = self.suites[header.steps, suite]
        first = inner[0]
        if not is_docstring(first.node) or not isinstance(header.node, Function):
            return InsertionPoint.beside(first, before=True) if first.starts_its_line else None
        if len(inner) > 1:
            return (
                InsertionPoint.beside(inner[1], before=True) if inner[1].starts_its_line else None
            )
        takes_lines = first.starts_its_line and first.ends_its_line
        return InsertionPoint.beside(first, before=False) if takes_lines else None

    @cached_property
    def style(self) -> Style:
        return style_of(self.module, self.workspace.line_width(self.name.parent))


class Workspace:
    """Facts on the files of a project, and the way from a name that one file imports to the file
    that defines it.

    `wants` says of a codemod's name whether it is asked; `editable` are the files that this run
    may change, `rewritable` those whose own lines it may replace, and `unproven` whether without
    a proof. `given` are files whose bytes are at hand, `known` what analyses have found in a file
    before its turn; `source` makes one of the bytes that are read.
    """

    def __init__(
        self,
        project: Project,
        wants: Callable[[str], bool],
        source: Callable[[Path, bytes], Source] = Source,
    ) -> None:
        self._make_source = source
        self.project = project
        self.wants = wants
        self.editable: set[PurePosixPath] = set()
        self.rewritable: set[PurePosixPath] = set()
        self.unproven = False
        self.names = Names(project, self.module)
        self.given: dict[PurePosixPath, Source] = {}
        self.known: dict[tuple[PurePosixPath, Callable[..., Any]], Any] = {}
        self._facts: dict[PurePosixPath, FileFacts] = {}
        self._size = 0
        self._found: dict[Callable[..., Any], Any] = {}
        self._widths: dict[PurePosixPath, int] = {}

    @classmethod
    def alone(
        cls,
        name: PurePosixPath,
        data: bytes,
        base: Path,
        wants: Callable[[str], bool] = lambda codemod: True,
    ) -> Workspace:
        """A workspace of one file whose bytes are at hand; `base` is where it would stand."""
        workspace = cls(Project(base, {name: Scan.of(data)}), wants)
        workspace.editable.add(name)
        workspace.given[name] = Source(base / name, data)
        return workspace

    def get(self, analysis: Callable[[Workspace], Found]) -> Found:
        """What an analysis finds in the project: asked for by itself, and made once."""
        if analysis not in self._found:
            self._found[analysis] = analysis(self)
        found: Found = self._found[analysis]
        return found

    def facts(self, name: PurePosixPath) -> FileFacts:
        """The facts of a file of the project. Those that were asked for last are kept."""
        facts = self._facts.pop(name, None)
        if facts is None:
            facts = FileFacts(name, self._source(name), self)
            self._size += len(facts.source.data)
            while self._facts and self._size > _KEPT:
                oldest = self._facts.pop(next(iter(self._facts)))
                self._size -= len(oldest.source.data)
        self._facts[name] = facts  # now the last one
        return facts

    def module(self, name: PurePosixPath) -> Module:
        """What a file of the project says.

        Raises:
            UnreadableSource: it can't be decoded or parsed.
        """
        return self.facts(name).module

    def definition(self, name: PurePosixPath, used: str) -> tuple[FileFacts, str] | None:
        """The file of the project, and the name in it, that a dotted name used in the file `name`
        stands for."""
        found = self.names.home(name, used)
        return None if found is None else (self.facts(found[0]), found[1])

    def line_width(self, folder: PurePosixPath) -> int:
        """The columns of a line in a folder of the project, as its formatter has them."""
        if folder not in self._widths:
            base = self.project.base.resolve()
            place = (base / folder).resolve()
            self._widths[folder] = line_width(place, checkout_of(place) or base)
        return self._widths[folder]

    def forget(self, name: PurePosixPath) -> None:
        """Takes a file whose turn is over out of memory."""
        facts = self._facts.pop(name, None)
        if facts is not None:
            self._size -= len(facts.source.data)
            # What was found in it refers to it: without this it would stay until the garbage
            # collector comes by.
            facts.forget()

    def _source(self, name: PurePosixPath) -> Source:
        if name in self.given:
            return self.given[name]
        path = self.project.base / name
        try:
            data = self.project.read(name)
        except FileError as error:  # it was there when the tree was read
            return Source(path, b"", problem=str(error))
        return self._make_source(path, data)
