"""Parsers that one file builds and others parse their arguments with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from flash_codemods.argparse.namespaces import Namespaces, may_parse
from flash_codemods.argparse.parsers import Parser, Parsers
from flash_integrate.errors import FileError
from flash_integrate.project.kinds import is_test
from flash_integrate.project.workspace import FileFacts, Workspace


class Sharing:
    """Who uses which parser of a project."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._users: dict[Parser, list[PurePosixPath]] = {}

    def users(self, parser: Parser) -> list[FileFacts]:
        """The other files, tests aside, that parse arguments with a parser."""
        if parser not in self._users:
            self._users[parser] = [
                name for name in self._importers(parser.home) if self._uses(name, parser)
            ]
        return [self._workspace.facts(name) for name in self._users[parser]]

    def _uses(self, name: PurePosixPath, parser: Parser) -> bool:
        if is_test(name):
            return False
        facts = self._workspace.facts(name)
        try:
            return may_parse(facts) and parser in facts.get(Namespaces).used
        except FileError:  # reported when its own turn comes
            return False

    def _importers(self, name: PurePosixPath) -> Iterator[PurePosixPath]:
        """The files that import the file `name`, themselves or through others."""
        seen, todo = {name}, [name]
        while todo:
            for path in sorted(self._workspace.project.importers.get(todo.pop(), ())):
                if path not in seen:
                    seen.add(path)
                    todo.append(path)
                    yield path


def shared_parsers(facts: FileFacts) -> list[Parser]:
    """The parsers of a file that other files parse their arguments with."""
    if b"argparse" not in facts.source.data and not facts.get(Parsers).made:
        return []
    sharing = facts.workspace.get(Sharing)
    return [parser for parser in facts.get(Parsers).made if sharing.users(parser)]
