"""How a script comes to attention: through what it does itself, or through the functions and
classes it imports.

The question is asked of names, not of files: a script that takes `read_jsonl` from a module which
elsewhere loads a model does not run attention.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import TypeAlias

from flash_integrate.attention.uses import Uses
from flash_integrate.errors import FileError
from flash_integrate.project.imports import Import, Project, Scan
from flash_integrate.python.source import Source
from flash_integrate.python.syntax import dotted

# A word of the package's name: `mlxtend` and the driver `mlx90614` have nothing to do with MLX.
_MLX = re.compile(r"(^|_)mlx(_|$)")
_NAMED_OTHERWISE = {"mflux", "fastmlx", "mlxim", "diffusionkit"}
# MLX packages that hold no model.
_NO_MODELS = {"mlx", "mlx_data", "mlx_flash_runtime", "mlx_cuda", "mlx_metal", "mlx_optimizers"}
# What a package of models offers besides running them, by the name of a module or of what it
# defines.
_RUNS_NOTHING = {
    "convert", "quantize", "quantize_model", "dequantize_model", "save", "save_config",
    "save_model", "save_weights", "save_gguf", "convert_to_gguf", "upload_to_hub",
    "create_model_card", "get_model_path", "fetch_from_hub", "hf_repo_to_path", "load_config",
    "load_tokenizer", "TokenizerWrapper", "compute_bits_per_weight", "get_total_parameters",
    "__version__", "version", "load_audio", "load_dataset", "download", "tokenizer_utils",
}  # fmt: skip
_FRAMEWORKS = {"FastAPI", "Flask", "Quart", "Starlette", "Litestar", "Sanic"}
_Seen: TypeAlias = set[tuple[PurePosixPath, str]]
_Steps: TypeAlias = "Iterator[str | _Steps]"
WHOLE = ""
"""Stands for a file as a whole, where the name of one of its definitions is asked for."""


def holds_models(module: str) -> bool:
    """Whether a module belongs to a package of MLX models (mlx_lm, mlx_vlm, mlx_whisper, ...)."""
    package = module.partition(".")[0]
    return package in _NAMED_OTHERWISE or (bool(_MLX.search(package)) and package not in _NO_MODELS)


@dataclass(frozen=True)
class Definition:
    """A function, class or variable of a module: whether it is a web application, and of what it
    is another name."""

    is_application: bool = False
    alias: str | None = None


@dataclass(frozen=True)
class Symbols:
    """A module's top-level definitions and the names that its imports bind. It holds no tree:
    those are large."""

    imported: dict[str, tuple[Import, str | None]]
    stars: list[Import]
    definitions: dict[str, Definition]

    @classmethod
    def of(cls, source: Source) -> Symbols:
        found = cls({}, [], {})
        for node in source.nodes:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    item = Import(node.level, node.module or "", (alias.name,))
                    if alias.name == "*":
                        found.stars.append(item)
                    else:
                        found.imported[alias.asname or alias.name] = (item, alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    found.imported[alias.asname or alias.name] = (Import(0, alias.name), None)
        for name, node in source.definitions.items():
            alias_of = dotted(node.value) if isinstance(node, ast.Assign) else None
            found.definitions[name] = Definition(makes_application(node), alias_of)
        return found

    def binds(self, name: str) -> bool:
        return name in self.definitions or name in self.imported

    def binding(self, name: str) -> tuple[Import, str, str] | None:
        """What an import binds of a dotted name: the import, the name that it takes, the attribute
        that follows."""
        for tail in _tails(name):
            bound = name[: len(name) - len(tail)].rstrip(".")
            if bound in self.imported:
                item, original = self.imported[bound]
                attribute = tail.partition(".")[0]
                return item, original or attribute, attribute
        return None


class AttentionReach:
    """Answers for the files of one project, which `source` gives; every definition is read at most
    once."""

    def __init__(self, project: Project, source: Callable[[PurePosixPath], Source]) -> None:
        self.project = project
        self.source = source
        self._script: tuple[PurePosixPath, Source] | None = None
        self._symbols: dict[PurePosixPath, Symbols | None] = {}
        self._uses: dict[tuple[PurePosixPath, str], Uses] = {}
        self._imports_mlx: dict[PurePosixPath, bool] = {}
        self._leads_nowhere: _Seen = set()

    def of_script(self, path: PurePosixPath, source: Source) -> str | None:
        """How the script at `path` comes to attention, in words; None if it does not."""
        self._script = path, source
        if path not in self._symbols:
            self._symbols[path] = Symbols.of(source)
        return self._first(lambda seen: self._search(path, WHOLE, "", seen))

    def of_definition(self, path: PurePosixPath, node: ast.stmt) -> str | None:
        """How one definition of the file at `path` comes to attention."""
        return self._first(lambda seen: self._follow_uses(path, Uses.of(node), "", seen))

    def uses(self, path: PurePosixPath, name: str) -> Uses:
        """What a definition of the file at `path` uses, or with the name `WHOLE` the file."""
        if (path, name) not in self._uses:
            own = self._script is not None and self._script[0] == path
            source = self._script[1] if own and self._script else self.source(path)
            node = source.tree if name == WHOLE else source.definitions[name]
            self._uses[path, name] = Uses.of(node)
        return self._uses[path, name]

    def imports_mlx(self, path: PurePosixPath) -> bool:
        """Whether a file imports MLX or a package for it, or another file of the project that
        does."""
        if path not in self._imports_mlx:
            scans = self.project.scans
            holds = partial(_imports_mlx, scans)
            self._imports_mlx |= self.project.reaching(path, self._imports_mlx, holds)
        return self._imports_mlx[path]

    def symbols(self, path: PurePosixPath) -> Symbols | None:
        """The symbols of a file of the project; None if it can't be parsed."""
        if path not in self._symbols:
            try:
                self._symbols[path] = Symbols.of(self.source(path))
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
            wanted, found = _wanted(target, item, name, attribute), self.symbols(target)
            if found is not None and (found.binds(wanted)):
                return target, wanted
        return None

    def application_home(
        self, path: PurePosixPath, module: str, application: str
    ) -> PurePosixPath | None:
        """The file that makes the application which `path` names as `module:application`,
        re-exports seen through."""
        item, name, home = Import(0, module), application, None
        for _ in range(4):
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
            inner = (
                [*(found for found, _ in symbols.imported.values()), *symbols.stars]
                if symbols
                else []
            )
            for target in (
                target for found in inner for target in self.project.resolve(found, package)
            ):
                defines = self.symbols(target)
                if defines is not None and name in defines.definitions:
                    return target
        return None

    def _first(self, start: Callable[[_Seen], _Steps]) -> str | None:
        """The first answer of a step or of those that it leads to, in their order. Not by
        recursion: one definition may lead to the next more often than one call may to another."""
        seen: _Seen = set()
        stack = [start(seen)]
        while stack:
            found = next(stack[-1], None)
            if isinstance(found, str):
                return found
            if found is None:
                stack.pop()
            else:
                stack.append(found)
        self._leads_nowhere |= seen
        return None

    def _is_new(self, path: PurePosixPath, name: str, seen: _Seen) -> bool:
        """Whether a name of a file is still to be looked at."""
        if (path, name) in seen or (path, name) in self._leads_nowhere:
            return False
        seen.add((path, name))
        return True

    # A step yields an answer, or further steps. `way` is how the script came to the file in which
    # the step looks.

    def _search(self, path: PurePosixPath, name: str, way: str, seen: _Seen) -> _Steps:
        """Looks at one definition (or a whole file) and at everything that it names."""
        if name == WHOLE and not self._is_new(path, name, seen):
            return
        yield self._follow_uses(path, self.uses(path, name), way, seen)
        symbols = self.symbols(path) if name == WHOLE else None
        for item in symbols.stars if symbols is not None else ():
            yield self._follow_import(path, item, "*", "", seen)

    def _follow_uses(self, path: PurePosixPath, uses: Uses, way: str, seen: _Seen) -> _Steps:
        if uses.attention is not None and self.imports_mlx(path):
            yield way or uses.attention
        if uses.loads_by_name:
            yield way or "loads modules by name"
        symbols = self.symbols(path)
        if symbols is None:
            return
        for name in uses.names:
            yield self._follow(path, symbols, name, way, seen)
        for module, app in uses.served:
            home = self.application_home(path, module, app)
            target = self.symbols(home) if home is not None else None
            if home is not None and target is not None:
                yield self._follow(home, target, app, f"serves {home}", seen)

    def _follow(
        self, path: PurePosixPath, symbols: Symbols, name: str, way: str, seen: _Seen
    ) -> _Steps:
        """Follows a dotted name that is used in `path` to where it is defined."""
        if not self._is_new(path, name, seen):
            return
        root = name.partition(".")[0]
        if root in symbols.definitions:
            # What an application does stands in functions that are decorated with it.
            yield self._search(
                path, WHOLE if symbols.definitions[root].is_application else root, way, seen
            )
        elif (binding := symbols.binding(name)) is not None:
            yield self._follow_import(path, *binding, seen)

    def _follow_import(
        self, path: PurePosixPath, item: Import, name: str, attribute: str, seen: _Seen
    ) -> _Steps:
        if not item.dots and holds_models(item.module) and not self.project.resolve(item, path):
            package, *modules = item.module.split(".")
            if _RUNS_NOTHING.isdisjoint([*modules, name]):
                yield f"imports {package}"
            return
        for target in self.project.resolve(item, path):
            symbols = self.symbols(target)
            if symbols is None:
                continue
            way = f"imports {target}"
            if name in (
                "*",
                "",
            ):  # everything, or the module as an object: `getattr(models, args.arch)`
                yield self._search(target, WHOLE, way, seen)
            else:
                yield self._follow(
                    target, symbols, _wanted(target, item, name, attribute), way, seen
                )


def _imports_mlx(scans: Mapping[PurePosixPath, Scan], path: PurePosixPath) -> bool:
    return any(map(_is_mlx, scans[path].imports))


def _wanted(target: PurePosixPath, item: Import, name: str, attribute: str) -> str:
    """The name to look for in `target`: where an import takes a module or package from the one
    that it names, that is the attribute used of it."""
    module = target.parent if target.name == "__init__.py" else target.with_suffix("")
    package = item.module.rpartition(".")[2]
    is_module = module.name == name and package in ("", module.parent.name)
    return attribute if attribute and is_module else name


def _tails(name: str) -> Iterator[str]:
    """`a.b.c` -> "", "c", "b.c": what can follow the part that an import binds, the longest
    binding first."""
    parts = name.split(".")
    return (".".join(parts[count:]) for count in range(len(parts), 0, -1))


def makes_application(node: ast.stmt) -> bool:
    """Whether a statement makes a web application: `app = FastAPI()`."""
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    return (
        isinstance(value, ast.Call) and (dotted(value.func) or "").rpartition(".")[2] in _FRAMEWORKS
    )


def _is_mlx(item: Import) -> bool:
    return not item.dots and (item.module.partition(".")[0] == "mlx" or holds_models(item.module))
