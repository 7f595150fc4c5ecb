"""What the names of a file stand for in the other files of the project: its definitions, and the
way of a name through imports."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from flash_integrate.errors import FileError
from flash_integrate.project.applications import makes_application
from flash_integrate.project.imports import Import, Project
from flash_integrate.python.module import Imported, Module, longest_bound
from flash_integrate.python.syntax import dotted

_MOST_IMPORTS = 4
"""Through so many re-exports a name is followed."""


@dataclass(frozen=True)
class Definition:
    """A function, class or variable of a module: whether it is an application, and of what it
    is another name."""

    is_application: bool = False
    alias: str | None = None


@dataclass(frozen=True)
class Symbols:
    """A module's top-level definitions and the names that its imports bind. It holds no tree:
    those are large."""

    imported: dict[str, Imported]
    stars: list[Import]
    definitions: dict[str, Definition]

    @classmethod
    def of(cls, module: Module) -> Symbols:
        found = cls({}, [], {})
        for item in module.imports:
            if item.name == "*":
                found.stars.append(_import_of(item))
            else:
                found.imported[item.bound] = item
        for name, node in module.definitions.items():
            alias_of = dotted(node.value) if isinstance(node, ast.Assign) else None
            found.definitions[name] = Definition(makes_application(module, node), alias_of)
        return found

    def binds(self, name: str) -> bool:
        return name in self.definitions or name in self.imported

    def binding(self, name: str) -> tuple[Import, str, str] | None:
        """What an import binds of a dotted name: the import, the name that it takes, the attribute
        that follows."""
        found = longest_bound(self.imported, name)
        if found is None:
            return None
        item, tail = found
        attribute = tail.partition(".")[0]
        return _import_of(item), item.name or attribute, attribute


def _import_of(item: Imported) -> Import:
    return Import(item.dots, item.module, (item.name,) if item.name else ())


class Names:
    """Answers for the files of one project, of which `module` gives the syntax; each is read at
    most once."""

    def __init__(self, project: Project, module: Callable[[PurePosixPath], Module]) -> None:
        self.project = project
        self._module = module
        self._symbols: dict[PurePosixPath, Symbols | None] = {}

    def symbols(self, path: PurePosixPath) -> Symbols | None:
        """The symbols of a file of the project; None if it can't be parsed."""
        if path not in self._symbols:
            try:
                self._symbols[path] = Symbols.of(self._module(path))
            except FileError:  # reported when the file's own turn comes
                self._symbols[path] = None
        return self._symbols[path]

    def imported_definition(
        self, path: PurePosixPath, used: str
    ) -> tuple[PurePosixPath, str] | None:
        """The file, and the name in it, from which the file `path` imports a dotted name, one
        import further."""
        symbols = self.symbols(path)
        binding = symbols.binding(used) if symbols is not None else None
        if binding is None:
            return None
        item, name, attribute = binding
        for target in self.project.resolve(item, path):
            defined, found = wanted(target, item, name, attribute), self.symbols(target)
            if found is not None and found.binds(defined):
                return target, defined
        return None

    def home(self, path: PurePosixPath, used: str) -> tuple[PurePosixPath, str] | None:
        """The file that defines a dotted name used in the file `path`, and the name in it."""
        for _ in range(_MOST_IMPORTS):
            target = self.imported_definition(path, used)
            if target is None:
                return None
            path, used = target
            symbols = self.symbols(path)
            if symbols is not None and used in symbols.definitions:
                return target
        return None

    def application_home(
        self, path: PurePosixPath, module: str, application: str
    ) -> PurePosixPath | None:
        """The file that makes the application which `path` names as `module:application`,
        re-exports seen through."""
        item, name, home = Import(0, module), application, None
        for _ in range(_MOST_IMPORTS):
            others = (target for target in self.project.resolve(item, path) if target != path)
            targets = ((target, self.symbols(target)) for target in others)
            found = next(
                (
                    (target, symbols)
                    for target, symbols in targets
                    if symbols and symbols.binds(name)
                ),
                None,
            )
            if found is None:
                return home or self._handed_on(path, item, name)
            home, symbols = found
            definition = symbols.definitions.get(name)
            binding = symbols.binding(name if definition is None else definition.alias or "")
            if binding is None:
                return home
            path, item = home, binding[0]
            name = binding[2] or binding[1]
        return home

    def _handed_on(self, path: PurePosixPath, item: Import, name: str) -> PurePosixPath | None:
        """The module that defines a name which a package takes over from it without naming it: by
        `*`, say."""
        for package in self.project.resolve(item, path):
            symbols = self.symbols(package)
            inner = [*map(_import_of, symbols.imported.values()), *symbols.stars] if symbols else []
            for target in (
                target for found in inner for target in self.project.resolve(found, package)
            ):
                defines = self.symbols(target)
                if defines is not None and name in defines.definitions:
                    return target
        return None


def wanted(target: PurePosixPath, item: Import, name: str, attribute: str) -> str:
    """The name to look for in `target`: where an import takes a module or package from the one
    that it names, that is the attribute used of it."""
    module = target.parent if target.name == "__init__.py" else target.with_suffix("")
    package = item.module.rpartition(".")[2]
    is_module = module.name == name and package in ("", module.parent.name)
    return attribute if attribute and is_module else name
