"""One scanned base folder: its files, what they define and import, and what is known of each.
Parsed at most once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path, PurePosixPath

from flash_codemods.argparse.namespaces import ArgparseFacts
from flash_codemods.argparse.parsers import Parser
from flash_integrate.attention.reach import WHOLE, AttentionReach
from flash_integrate.errors import FileError
from flash_integrate.project.file_facts import FileFacts
from flash_integrate.project.imports import Project, Scan
from flash_integrate.project.kinds import is_test
from flash_integrate.project.packaging import entry_points
from flash_integrate.python.source import Source

_KEPT = 64
"""Files whose bytes and tree are kept at a time."""


class Workspace:
    """Facts on the files of a project, and the way from a name that one file imports to the file
    that defines it.

    `wants` says of a codemod's name whether it is asked; `editable` are the files that this run
    may change.
    """

    def __init__(self, project: Project, wants: Callable[[str], bool]) -> None:
        self.project = project
        self.wants = wants
        self.editable: set[PurePosixPath] = set()
        self.being_read: set[PurePosixPath] = set()
        self.reach = AttentionReach(project, self.source)
        self._given: dict[PurePosixPath, Source] = {}
        self._sources: dict[PurePosixPath, Source] = {}
        self._facts: dict[PurePosixPath, FileFacts] = {}

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
        workspace._given[name] = Source(base / name, data)
        return workspace

    @cached_property
    def console_scripts(self) -> dict[PurePosixPath, set[str]]:
        """For each file of the project the names of its functions that are installed as
        commands."""
        found: dict[PurePosixPath, set[str]] = {}
        for named in entry_points(self.project):
            home, function = self._home(*named) or named
            found.setdefault(home, set()).add(function)
        return found

    def source(self, name: PurePosixPath) -> Source:
        """A file of the project. The last ones read are kept: with their trees, all would take too
        much memory."""
        if name in self._given:
            return self._given[name]
        if name not in self._sources:
            self._sources[name] = self._read(name)
            for oldest in list(self._sources)[: -_KEPT or None]:
                del self._sources[oldest]
                self._forget_facts(oldest)
        return self._sources[name]

    def _read(self, name: PurePosixPath) -> Source:
        path = self.project.base / name
        try:
            return Source(path, self.project.read(name))
        except FileError as error:  # it was there when the tree was read
            return Source(path, b"", problem=str(error))

    def forget(self, name: PurePosixPath) -> None:
        """Takes a file whose turn is over out of memory, unless others look up the parsers that it
        holds."""
        self._sources.pop(name, None)
        if name in self._facts and name not in self.project.importers:
            del self._facts[name]
        self._forget_facts(name)

    def _forget_facts(self, name: PurePosixPath) -> None:
        facts = self._facts.get(name)
        if facts is not None and name not in self.being_read and not facts.holds_parsers:
            del self._facts[name]

    def facts(self, name: PurePosixPath) -> FileFacts:
        """The facts of a file of the project."""
        if name not in self._facts:
            self._facts[name] = FileFacts(name, self.source(name), self)
        return self._facts[name]

    def definition(self, name: PurePosixPath, used: str) -> tuple[FileFacts, str] | None:
        """The file of the project, and the name in it, that a dotted name used in the file `name`
        stands for."""
        found = self._home(name, used)
        return None if found is None else (self.facts(found[0]), found[1])

    def _home(self, name: PurePosixPath, used: str) -> tuple[PurePosixPath, str] | None:
        """Where a name that the file `name` imports is defined."""
        for _ in range(4):  # re-exports through a package's __init__ are followed this far
            target = self.reach.imported_definition(name, used)
            if target is None:
                return None
            name, used = target
            symbols = self.reach.symbols(name)
            if symbols is not None and used in symbols.definitions:
                return target
        return None

    def argparse_definition(
        self, name: PurePosixPath, used: str
    ) -> tuple[ArgparseFacts, str] | None:
        """The argparse facts of the project's file that defines a name which the file `name`
        imports."""
        found = self.definition(name, used)
        if found is None or found[0].name in self.being_read:  # modules that import each other
            return None
        return found[0].argparse, found[1]

    def servers(self, name: PurePosixPath, application: str) -> list[FileFacts]:
        """The other files that run the application which the file `name` binds: by
        `uvicorn.run("module:app")`, or by its name, imported from there."""
        paths = (path for path in self.project.scans if path != name and not is_test(path))
        return [self.facts(path) for path in paths if self._serves(path, name, application)]

    def _serves(self, path: PurePosixPath, name: PurePosixPath, application: str) -> bool:
        imports = self.project.scans[path].imports
        if any(application in item.names for item in imports):
            found = self.definition(path, application)
            if found is not None and found[0].name == name:
                return True
        if (
            not any(item.module == "uvicorn" for item in imports)
            or self.reach.symbols(path) is None
        ):
            return False
        return any(
            self.reach.application_home(path, *served) == name
            for served in self.reach.uses(path, WHOLE).served
        )

    def users(self, parser: Parser) -> list[FileFacts]:
        """The other files, tests aside, that parse arguments with `parser`, which its file's
        importers share."""
        others = (facts for facts in self._importers(parser.home) if not is_test(facts.name))
        return [facts for facts in others if parser in facts.argparse.parsers_used]

    def _importers(self, name: PurePosixPath) -> list[FileFacts]:
        """The files that import the file `name`, themselves or through others, and can be
        parsed."""
        found: dict[PurePosixPath, FileFacts | None] = {}
        todo = [name]
        while todo:
            for path in sorted(self.project.importers.get(todo.pop(), ())):
                if path not in found and path != name:
                    facts = self.facts(path)
                    try:
                        _ = facts.tree
                    except FileError:  # reported when its own turn comes
                        found[path] = None
                    else:
                        found[path] = facts
                    todo.append(path)
        return [facts for facts in found.values() if facts is not None]
