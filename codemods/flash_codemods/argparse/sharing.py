"""Parsers that one file builds and others parse their arguments with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from flash_codemods.argparse.namespaces import Namespaces, may_parse
from flash_codemods.argparse.parsers import Parser, ParserKey, Parsers
from flash_integrate.errors import FileError
from flash_integrate.project.kinds import is_test
from flash_integrate.project.workspace import FileFacts, Workspace


class Sharing:
    """Who uses which parser of a project."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._users: dict[ParserKey, list[PurePosixPath]] = {}
        self._used: dict[PurePosixPath, set[ParserKey]] = {}

    def users(self, parser: Parser) -> list[FileFacts]:
        """The other files, tests aside, that parse arguments with a parser."""
        if parser.key not in self._users:
            self._users[parser.key] = [
                name for name in self._importers(parser.home) if parser.key in self._used_by(name)
            ]
        return [self._workspace.facts(name) for name in self._users[parser.key]]

    def _used_by(self, name: PurePosixPath) -> set[ParserKey]:
        """The parsers with which a file parses arguments. It is read for that once, however many
        parsers the files have that it imports."""
        if name not in self._used:
            self._used[name] = {parser.key for parser in self._parsers_of(name)}
        return self._used[name]

    def _parsers_of(self, name: PurePosixPath) -> list[Parser]:
        if is_test(name):
            return []
        facts = self._workspace.facts(name)
        try:
            return facts.get(Namespaces).used if may_parse(facts) else []
        except FileError:  # reported when its own turn comes
            return []

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
