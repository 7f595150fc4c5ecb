"""What the names of a file stand for in the other files of the project: its definitions, and the
way of a name through imports."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from flash_integrate.errors import FileError
from flash_integrate.project.applications import makes_application, makes_router
from flash_integrate.project.imports import Project
from flash_integrate.project.scan import Import
from flash_integrate.python.module import Imported, Module, longest_bound
from flash_integrate.python.syntax import Function, assignments, dotted, is_special, is_static

WHOLE = ""
"""Stands for a file as a whole, where the name of one of its definitions is asked for."""
_GIVES_NAMES = "__getattr__"


@dataclass(frozen=True)
class Definition:
    """A function, class or variable of a module: whether it is an application, or a router of
    one, of what it is another name; of a class its methods, those of them that are static, all that
    it gives a name, and the one class that it inherits."""

    is_application: bool = False
    is_router: bool = False
    alias: str | None = None
    methods: frozenset[str] = frozenset()
    static: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    base: str | None = None

    @classmethod
    def of(cls, module: Module, node: ast.stmt) -> Definition:
        alias_of = dotted(node.value) if isinstance(node, ast.Assign) else None
        body, bases = (node.body, node.bases) if isinstance(node, ast.ClassDef) else ([], [])
        methods = [item for item in body if isinstance(item, Function)]
        names = frozenset(item.name for item in methods)
        return cls(
            makes_application(module, node),
            makes_router(module, node),
            alias_of,
            names,
            frozenset(item.name for item in methods if is_static(item)),
            names.union(name for item in body for name, _ in assignments(item)),
            dotted(bases[0]) if len(bases) == 1 else None,
        )


@dataclass(frozen=True)
class Symbols:
    """A module's top-level definitions and the names that its imports bind. It holds no tree:
    those are large.

    `lazy` are the modules from which the module's `__getattr__` takes names, and the names there;
    `passes_on` is what it takes all others of, as `app` for `return getattr(app, name)`.
    """

    imported: dict[str, Imported]
    stars: list[Imported]
    definitions: dict[str, Definition]
    lazy: dict[str, tuple[str, str]] = field(default_factory=dict)
    passes_on: str | None = None

    @classmethod
    def of(cls, module: Module) -> Symbols:
        stars = [item for item in module.imports if item.name == "*"]
        imported = {name: item for name, item in module.import_by_name.items() if name != "*"}
        found = cls(imported, stars, {}, passes_on=_passed_on(module.defines(_GIVES_NAMES)))
        for name, node in module.definitions.items():
            found.definitions[name] = Definition.of(module, node)
        if _GIVES_NAMES in found.definitions:
            found.lazy.update(_lazy_names(module))
        return found

    def binds(self, name: str) -> bool:
        return name in self.definitions or name in self.imported

    def import_of(self, name: str) -> tuple[Imported, str] | None:
        """The import that binds a dotted name, or the longest beginning of it, and what follows."""
        root, _, rest = name.partition(".")
        if root not in self._first_names:
            return None
        # `import a.b` binds `a` too.
        return longest_bound(self.imported, name) or (Imported(root, 0, root, None, 1, True), rest)

    @cached_property
    def _first_names(self) -> set[str]:
        """What the names begin with that imports bind: most names in a file are of no import."""
        return {bound.partition(".")[0] for bound in self.imported}


def _lazy_names(module: Module) -> Iterator[tuple[str, tuple[str, str]]]:
    """What the dictionaries of a module with `__getattr__` give: `{"Model": ".model"}`, or
    `{"Model": ("pkg.model", "Model")}`."""
    for node in module.definitions.values():
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if not isinstance(value, ast.Dict):
            continue
        for key, given in zip(value.keys, value.values, strict=True):
            parts = given.elts if isinstance(given, ast.Tuple | ast.List) else [given]
            words = [part.value for part in [key, *parts] if isinstance(part, ast.Constant)]
            if len(words) in (2, 3) and all(isinstance(word, str) for word in words):
                name, home, *there = map(str, words)
                yield name, (home, there[0] if there else name)


def _passed_on(gives_names: ast.stmt | None) -> str | None:
    """The `module` of a `__getattr__` that is nothing but `return getattr(module, name)`."""
    last = gives_names.body[-1] if isinstance(gives_names, Function) else None
    call = last.value if isinstance(last, ast.Return) else None
    if isinstance(call, ast.Call) and dotted(call.func) == "getattr" and len(call.args) == 2:
        return dotted(call.args[0])
    return None


@dataclass(frozen=True)
class Defined:
    """A definition of a file of the project (`WHOLE`: the file itself), and the attributes of it
    that a dotted name goes on to."""

    path: PurePosixPath
    name: str
    rest: str = ""


@dataclass(frozen=True)
class Outside:
    """A name of a package that is no part of the project: `mlx.core.softmax` for `mx.softmax`."""

    name: str

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


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

    def meaning(
        self, path: PurePosixPath, used: str, *, is_attribute: bool = False
    ) -> Defined | Outside | None:
        """What a dotted name in the file `path`, or as an attribute of its module, stands for,
        through every import and package on its way; None where that can't be said, as of a
        variable."""
        todo = [(path, used)]
        seen: set[tuple[PurePosixPath, str]] = set()
        while todo:
            step = todo.pop()
            if step in seen:
                continue
            found = self._step(*step, is_attribute=is_attribute or bool(seen))
            seen.add(step)
            if isinstance(found, Defined | Outside):
                return found
            todo += reversed(found)
        return None

    def _step(
        self, path: PurePosixPath, used: str, is_attribute: bool
    ) -> Defined | Outside | list[tuple[PurePosixPath, str]]:
        """What a name stands for in one file, or the files and names where that is to be looked
        for, the likeliest first."""
        if not used:
            return Defined(path, WHOLE)
        symbols = self.symbols(path)
        if symbols is None:
            return []
        root, _, rest = used.partition(".")
        if root in symbols.definitions:
            return Defined(path, root, rest)
        if (bound := symbols.import_of(used)) is not None:
            return self._through_import(path, *bound)
        if root in symbols.lazy:
            module, name = symbols.lazy[root]
            return self._in_module(path, module, f"{name}.{rest}".rstrip("."))
        further = [
            (home, used)
            for star in symbols.stars
            if (home := self.module_file(path, star.dots, star.module)) is not None
        ]
        # `pkg.model` may be a module of the package; `model` in its `__init__` is a variable.
        submodule = self._submodule(path, root) if is_attribute else None
        if submodule is not None:
            further.append((submodule, rest))
        owner = symbols.passes_on
        if owner is not None and root != owner.partition(".")[0]:
            further.append((path, f"{owner}.{used}"))
        if not further and not is_special(root) and _GIVES_NAMES in symbols.definitions:
            return Defined(path, _GIVES_NAMES)
        return further

    def _through_import(
        self, path: PurePosixPath, item: Imported, rest: str
    ) -> Outside | list[tuple[PurePosixPath, str]]:
        home = self.module_file(path, item.dots, item.module)
        used = f"{item.name or ''}.{rest}".strip(".")
        root, _, inner = used.partition(".")
        if home is not None and home != path:
            return [(home, used)]
        # `from . import layers` in a package takes its own module, as does any import from a
        # folder that has no `__init__`.
        found = self.project.resolve(Import(item.dots, item.module, (root,)), path) if root else []
        modules = [target for target in found if target not in (home, path)]
        if modules:
            return [(modules[0], inner)]
        return [] if item.dots or home is not None else Outside(f"{item.module}.{used}".strip("."))

    def _in_module(
        self, path: PurePosixPath, module: str, used: str
    ) -> Outside | list[tuple[PurePosixPath, str]]:
        """Where a name is looked for in a module that is named by a text, as for
        `importlib.import_module`."""
        name = module.lstrip(".")
        dots = len(module) - len(name)
        for level in (dots, dots or 1):
            if (home := self.module_file(path, level, name)) is not None:
                return [(home, used)]
        return [] if dots else Outside(f"{module}.{used}".strip("."))

    def module_file(
        self, path: PurePosixPath, dots: int, module: str, or_itself: bool = False
    ) -> PurePosixPath | None:
        """The file of a module that `path` imports, or has Python run, `or_itself`; None if the
        project has none."""
        found = self.project.resolve(Import(dots, module), path, or_itself)
        packages = [target for target in found if target.name == "__init__.py"]
        return next(iter(packages or found), None)

    def _submodule(self, package: PurePosixPath, name: str) -> PurePosixPath | None:
        if package.name != "__init__.py":
            return None
        found = self.project.resolve(Import(1, name), package)
        return next((target for target in found if target != package), None)

    def named_module(self, path: PurePosixPath, module: str) -> Defined | Outside | None:
        """What `importlib.import_module(module)` loads in the file `path`."""
        found = self._in_module(path, module, "")
        if isinstance(found, Outside):
            return found
        return Defined(found[0][0], WHOLE) if found else None

    def home(self, path: PurePosixPath, used: str) -> tuple[PurePosixPath, str] | None:
        """The file that defines a dotted name which the file `path` imports, and the name in
        it."""
        found = self.meaning(path, used)
        if isinstance(found, Defined) and found.path != path and found.name != WHOLE:
            return found.path, found.name
        return None

    def application_home(
        self, path: PurePosixPath, module: str, application: str
    ) -> PurePosixPath | None:
        """The file that makes the application which `path` names as `module:application`,
        re-exports and other names of it seen through."""
        others = (
            target for target in self.project.resolve(Import(0, module), path) if target != path
        )
        home, name = next(others, None), application
        seen = set()
        while home is not None and (home, name) not in seen:
            seen.add((home, name))
            found = self.meaning(home, name, is_attribute=True)
            if not isinstance(found, Defined):
                return None
            home, name = found.path, found.name
            symbols = self.symbols(home)
            alias = symbols.definitions[name].alias if symbols and name != WHOLE else None
            if alias is None:
                return home
            name = f"{alias}.{found.rest}".rstrip(".")
        return home
