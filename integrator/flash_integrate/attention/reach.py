"""How a script comes to attention: through what it does itself, or through the functions and
classes it imports.

The question is asked of names, not of files: a script that takes `read_jsonl` from a module which
elsewhere loads a model does not run attention.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import TypeAlias

from flash_integrate.attention.uses import Uses
from flash_integrate.project.imports import Import, Project
from flash_integrate.project.names import Symbols, wanted
from flash_integrate.project.workspace import FileFacts, Workspace

# A word of the package's name: `mlxtend` and the driver `mlx90614` have nothing to do with MLX.
_MLX = re.compile(r"(^|_)mlx(_|$)")
_NAMED_OTHERWISE = {"mflux", "fastmlx", "mlxim", "diffusionkit"}
# MLX packages that hold no model.
_NO_MODELS = {
    "mlx", "mlx_cluster", "mlx_cuda", "mlx_data", "mlx_flash_runtime", "mlx_graphs", "mlx_metal",
    "mlx_optimizers",
}  # fmt: skip
# What a package of models offers besides running them, by the name of a module or of what it
# defines.
_RUNS_NOTHING = {
    "convert", "quantize", "quantize_model", "dequantize_model", "save", "save_config",
    "save_model", "save_weights", "save_gguf", "convert_to_gguf", "upload_to_hub",
    "create_model_card", "get_model_path", "fetch_from_hub", "hf_repo_to_path", "load_config",
    "load_tokenizer", "TokenizerWrapper", "compute_bits_per_weight", "get_total_parameters",
    "__version__", "version", "load_audio", "load_dataset", "download", "tokenizer_utils",
}  # fmt: skip
_Seen: TypeAlias = set[tuple[PurePosixPath, str]]
_Steps: TypeAlias = "Iterator[str | _Steps]"
WHOLE = ""
"""Stands for a file as a whole, where the name of one of its definitions is asked for."""


def holds_models(module: str) -> bool:
    """Whether a module belongs to a package of MLX models (mlx_lm, mlx_vlm, mlx_whisper, ...)."""
    package = module.partition(".")[0]
    return package in _NAMED_OTHERWISE or (bool(_MLX.search(package)) and package not in _NO_MODELS)


def imports_models(project: Project, path: PurePosixPath, item: Import) -> bool:
    """Whether an import in a file of the project is of a package of MLX models: not of a folder of
    the project itself that is named like one."""
    return not item.dots and holds_models(item.module) and not project.resolve(item, path)


class AttentionReach:
    """Answers for the files of one project; every definition is read at most once."""

    def __init__(self, workspace: Workspace) -> None:
        self.project = workspace.project
        self.names = workspace.names
        self._module = workspace.module
        self._uses: dict[tuple[PurePosixPath, str], Uses] = {}
        self._imports_mlx: dict[PurePosixPath, bool] = {}
        self._leads_nowhere: _Seen = set()

    def of_script(self, path: PurePosixPath) -> str | None:
        """How the script at `path` comes to attention, in words; None if it does not."""
        return self._first(lambda seen: self._search(path, WHOLE, "", seen))

    def of_definition(self, path: PurePosixPath, node: ast.stmt) -> str | None:
        """How one definition of the file at `path` comes to attention."""
        return self._first(lambda seen: self._follow_uses(path, Uses.of(node), "", seen))

    def uses(self, path: PurePosixPath, name: str) -> Uses:
        """What a definition of the file at `path` uses, or with the name `WHOLE` the file."""
        if (path, name) not in self._uses:
            module = self._module(path)
            node = module.tree if name == WHOLE else module.definitions[name]
            self._uses[path, name] = Uses.of(node)
        return self._uses[path, name]

    def imports_mlx(self, path: PurePosixPath) -> bool:
        """Whether a file imports MLX or a package for it, or another file of the project that
        does."""
        if path not in self._imports_mlx:
            holds = partial(_imports_mlx, self.project)
            self._imports_mlx |= self.project.reaching(path, self._imports_mlx, holds)
        return self._imports_mlx[path]

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
        symbols = self.names.symbols(path) if name == WHOLE else None
        for item in symbols.stars if symbols is not None else ():
            yield self._follow_import(path, item, "*", "", seen)

    def _follow_uses(self, path: PurePosixPath, uses: Uses, way: str, seen: _Seen) -> _Steps:
        if uses.attention is not None and self.imports_mlx(path):
            yield way or uses.attention
        if uses.loads_by_name:
            yield way or "loads modules by name"
        symbols = self.names.symbols(path)
        if symbols is None:
            return
        for name in uses.names:
            yield self._follow(path, symbols, name, way, seen)
        for module, app in uses.served:
            home = self.names.application_home(path, module, app)
            target = self.names.symbols(home) if home is not None else None
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
        if imports_models(self.project, path, item):
            package, *modules = item.module.split(".")
            if _RUNS_NOTHING.isdisjoint([*modules, name]):
                yield f"imports {package}"
            return
        for target in self.project.resolve(item, path):
            symbols = self.names.symbols(target)
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
                    target, symbols, wanted(target, item, name, attribute), way, seen
                )


def _imports_mlx(project: Project, path: PurePosixPath) -> bool:
    return any(
        imports_models(project, path, item)
        or (not item.dots and item.module.partition(".")[0] == "mlx")
        for item in project.scans[path].imports
    )


def reached(facts: FileFacts) -> str | None:
    """How a file comes to attention, in words; None if it does not."""
    return facts.workspace.get(AttentionReach).of_script(facts.name)


def runs_attention(facts: FileFacts, name: str) -> bool:
    """Whether a call of `name` runs attention: of a function or class of the module, or one that
    holds a model."""
    is_own = facts.module.defines(name) is not None
    return (is_own and leads_to_attention(facts, name)) or name in facts.get(model_functions)


def leads_to_attention(facts: FileFacts, name: str) -> bool:
    """Whether what a file defines by a name comes to attention."""
    node = facts.module.defines(name) or facts.module.definitions.get(name)
    reach = facts.workspace.get(AttentionReach)
    return node is not None and reach.of_definition(facts.name, node) is not None


def model_functions(facts: FileFacts) -> set[str]:
    """The names under which a file imports functions (not classes) of packages that hold models;
    of a package of the project itself those that come to attention."""
    found = set()
    for item in facts.module.imports:
        is_function = item.name is not None and item.name.islower()
        if not is_function or item.dots or not holds_models(item.module):
            continue
        own = facts.workspace.definition(facts.name, item.bound)
        is_installed = imports_models(
            facts.workspace.project, facts.name, Import(0, item.module, (item.name or "",))
        )
        if is_installed or (own is not None and leads_to_attention(*own)):
            found.add(item.bound)
    return found
