"""Which files of the runtime a patched script can come to.

The inserted text imports the package alone, so those are the modules that its `__init__` leads to,
also by an import within a function and by the text of a program that the runtime starts, with what
lies beside them that is no Python: kernels, tables, the license. The command mlx-flash, `python -m
mlx_flash_runtime` and modules that only a program's author calls are none of them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from flash_integrate.inserted.snippets import RUNTIME

_INIT = "__init__.py"
_NAMED_IN_A_PROGRAM = re.compile(rf"\b(?:from|import)[ ]{RUNTIME}\.([\w.]+)")


def reached_files(files: Mapping[PurePosixPath, bytes]) -> set[PurePosixPath]:
    """Those of the package's files, named from its folder on, that a patched script needs."""
    modules: set[PurePosixPath] = set()
    found = [PurePosixPath(_INIT)]
    while found:
        file = found.pop()
        if file in modules:
            continue
        modules.add(file)
        for name in _imported(file, ast.parse(files[file])):
            found += _files_of(name, files)
    packages = {file.parent for file in modules if file.name == _INIT}
    beside = {file for file in files if file.suffix != ".py" and _package(file, files) in packages}
    return modules | beside


def _imported(file: PurePosixPath, tree: ast.Module) -> Iterator[PurePosixPath]:
    """What a file imports of the package, as paths from its folder on: modules, and names that may
    be modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = PurePosixPath(file.parents[node.level - 1], *(node.module or "").split("."))
            yield base
            yield from (base / alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for name in _NAMED_IN_A_PROGRAM.findall(node.value):
                yield PurePosixPath(*name.split("."))


def _files_of(name: PurePosixPath, files: Mapping[PurePosixPath, bytes]) -> list[PurePosixPath]:
    """A module's file and those of the packages that it is in."""
    above = [folder / _INIT for folder in (name, *name.parents)]
    return [file for file in (PurePosixPath(f"{name}.py"), *above) if file in files]


def _package(file: PurePosixPath, files: Mapping[PurePosixPath, bytes]) -> PurePosixPath:
    """The nearest folder above that is a package."""
    return next(folder for folder in file.parents if folder / _INIT in files)
