"""Parsers that one file builds and others parse their arguments with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from flash_codemods.argparse.namespaces import Namespaces
from flash_integrate.errors import FileError
from flash_integrate.project.kinds import is_test
from flash_integrate.project.workspace import Workspace


class Sharing:
    """Which files of a project parse their arguments with a parser of another one."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._homes: dict[PurePosixPath, set[PurePosixPath]] = {}

    def user(self, home: PurePosixPath) -> PurePosixPath | None:
        """A file, tests aside, that parses its arguments with a parser of the file `home`."""
        others = (name for name in self._importers(home) if not is_test(name))
        return next((name for name in others if home in self._homes_of(name)), None)

    def _homes_of(self, name: PurePosixPath) -> set[PurePosixPath]:
        """The files of the parsers with which a file parses arguments. It is read for that once,
        however many files with parsers it imports."""
        if name not in self._homes:
            try:
                parsers = self._workspace.facts(name).get(Namespaces).parsers
            except FileError:  # reported when its own turn comes
                parsers = []
            self._homes[name] = {parser.home for parser in parsers}
        return self._homes[name]

    def _importers(self, name: PurePosixPath) -> Iterator[PurePosixPath]:
        """The files that import the file `name`, themselves or through others."""
        seen, todo = {name}, [name]
        while todo:
            for path in sorted(self._workspace.project.importers.get(todo.pop(), ())):
                if path not in seen:
                    seen.add(path)
                    todo.append(path)
                    yield path
