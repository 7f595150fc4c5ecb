"""The files of a tree as a graph of local imports."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath

from flash_integrate.disk import reading
from flash_integrate.errors import FileError
from flash_integrate.project.distributions import installed_packages
from flash_integrate.project.scan import ANY, Import, Scan, is_library, is_named_after_mlx

# An import, the folder of its file, folders that the file adds to Python's path, and the file
# itself where it has the name of the module.
Sought = tuple[Import, PurePosixPath, tuple[str, ...], "PurePosixPath | None"]


class Project:
    """The files below a base folder; paths are relative to it.

    `scans` are the files that were looked at. With `look_further` an import that leads to none of
    them is looked for on disk: who names a single script still has its local modules seen through.
    """

    def __init__(
        self, base: Path, scans: dict[PurePosixPath, Scan], look_further: bool = False
    ) -> None:
        self.base = base
        self.scans = scans
        self.look_further = look_further
        self._reaches_mlx: dict[PurePosixPath, bool] = {}
        self._loads_mlx: dict[PurePosixPath, bool] = {}
        self._may_attend: dict[PurePosixPath, bool] = {}
        self._loaded: dict[str, list[PurePosixPath]] = {}
        self._resolved: dict[Sought, list[PurePosixPath]] = {}

    @cached_property
    def importers(self) -> dict[PurePosixPath, set[PurePosixPath]]:
        """For each file that other files of the tree import, those files."""
        found: dict[PurePosixPath, set[PurePosixPath]] = {}
        for path in list(self.scans):
            for item in self.scans[path].imports:
                for target in self.resolve(item, path):
                    if target != path:
                        found.setdefault(target, set()).add(path)
        return found

    def importers_of(self, path: PurePosixPath, name: str) -> Iterator[PurePosixPath]:
        """The other files of the tree that import `name` from the file `path`, or the file as a
        whole."""
        for user in self.importers.get(path, ()):
            for item in self.scans[user].imports:
                whole = not item.names or {"*", path.stem} & set(item.names)
                if path in self.resolve(item, user) and (whole or name in item.names):
                    yield user

    @cached_property
    def _names_mlx(self) -> bool:
        """Whether any file of the tree names MLX: in a tree without it no import has to be
        followed."""
        return self.look_further or any(scan.names_mlx for scan in self.scans.values())

    @cached_property
    def folders(self) -> list[PurePosixPath]:
        """The folders that hold files, sorted."""
        return sorted({folder for path in self.scans for folder in path.parents})

    def manifest(self, path: PurePosixPath) -> str:
        """The text of a file that packages a project; empty where there is none that can be
        read: who builds the package is told."""
        try:
            return self.read(path, reading.SETTINGS_LIMIT).decode(errors="replace")
        except FileError:
            return ""

    @cached_property
    def _first_names(self) -> set[str]:
        """What the name of a module of the tree can begin with: most imports are of other
        packages."""
        names = {path.stem for path in self.scans} | {folder.name for folder in self.folders}
        return names | self._installed.keys()

    @cached_property
    def _installed(self) -> dict[str, PurePosixPath]:
        return installed_packages(self.scans, self.folders, self.manifest)

    def resolve(
        self, item: Import, path: PurePosixPath, or_itself: bool = False
    ) -> list[PurePosixPath]:
        """The files of the tree that an import in `path` reads: the module, and those of its names
        that are modules. `from whisper import load` in `engines/whisper.py` is of another package;
        a server that the file names may import the file itself, `or_itself`."""
        if (
            item.module
            and not self.look_further
            and item.module.partition(".")[0] not in self._first_names
        ):
            return []
        scan = self.scans.get(path)
        is_other = not or_itself and not item.dots and item.module == path.stem
        own = path if is_other else None
        key = (item, path.parent, scan.folders if scan is not None else (), own)
        if key not in self._resolved:
            self._resolved[key] = self._resolve(*key)
        return self._resolved[key]

    def _resolve(
        self,
        item: Import,
        folder: PurePosixPath,
        added: tuple[str, ...],
        own: PurePosixPath | None,
    ) -> list[PurePosixPath]:
        above = [folder, *folder.parents]
        roots = [base / sub for base in above for sub in ("", "src", *added)]
        bases = above[item.dots - 1 : item.dots] if item.dots else roots
        first, *others = item.module.split(".")
        stems = [base.joinpath(first, *others) for base in bases]
        if not item.dots and first in self._installed:
            stems.append(self._installed[first].joinpath(*others))
        for stem in stems:
            candidates = [stem.with_name(stem.name + ".py")] if stem.name else []
            candidates += [stem / "__init__.py", *(stem / f"{name}.py" for name in item.names)]
            candidates += [stem / name / "__init__.py" for name in item.names]
            if hits := [each for each in candidates if each != own and self._exists(each)]:
                return hits + self._listed(hits[0]) if "*" in item.names else hits
        return []

    def _listed(self, package: PurePosixPath) -> list[PurePosixPath]:
        """The modules in the `__all__` of a package: `from package import *` imports them."""
        if package.name != "__init__.py":
            return []
        names = self.scans[package].exported
        files = [package.with_name(f"{name}.py") for name in names]
        files += [package.with_name(name) / "__init__.py" for name in names]
        return [file for file in files if self._exists(file)]

    def reaches_mlx(self, path: PurePosixPath) -> bool:
        """Whether `path` names MLX, or imports a file of the tree that reaches it."""
        if path not in self._reaches_mlx:
            self._reaches_mlx |= self.reaching(
                path, self._reaches_mlx, lambda file: self.scans[file].names_mlx
            )
        return self._reaches_mlx[path]

    def loads_mlx(self, path: PurePosixPath) -> bool:
        """Whether `path` imports MLX, itself or through files of the tree: its own package may only
        be named after it."""
        if path not in self._loads_mlx:
            self._loads_mlx |= self.reaching(path, self._loads_mlx, self._imports_mlx)
        return self._loads_mlx[path]

    def may_attend(self, path: PurePosixPath) -> bool:
        """Whether `path` may come to attention, as far as bytes and imports show it: where they
        don't, nothing has to be parsed."""
        if path not in self._may_attend:
            self._may_attend |= self.reaching(path, self._may_attend, self._shows_attention)
        return self._may_attend[path]

    def _shows_attention(self, path: PurePosixPath) -> bool:
        """Whether a file by itself may call attention, or load a module by its name that does."""
        return path in self.attending or (self.scans[path].loads_by_name and bool(self.attending))

    @cached_property
    def attending(self) -> set[PurePosixPath]:
        """The files that have MLX and a word of attention, or import a package of models that is
        not the project's own."""
        self._find_what_is_imported()
        known: dict[PurePosixPath, bool] = {}
        found = set()
        for path, scan in self.scans.items():
            libraries = [item for item in scan.imports if is_library(item)]
            libraries += [Import(0, name) for name in scan.packages]
            if not all(self.resolve(item, path) for item in libraries):
                found.add(path)
            elif scan.may_attend:
                known |= self.reaching(path, known, self._imports_mlx, self._may_give_mlx)
                if known[path]:
                    found.add(path)
        return found

    def _find_what_is_imported(self) -> None:
        """Has the files looked at that only imports lead to, see `look_further`."""
        count = -1
        while self.look_further and count != len(self.scans):
            count = len(self.scans)
            for path in list(self.scans):
                for item in self.scans[path].imports:
                    self.resolve(item, path)

    def _imports_mlx(self, path: PurePosixPath) -> bool:
        """Whether a file imports MLX, or a package named after it that is not the project's own."""
        scan = self.scans[path]
        named = [item for item in scan.imports if scan.names_mlx and is_named_after_mlx(item)]
        return bool(scan.mlx) or any(
            item.module.partition(".")[0] == "mlx" or not self.resolve(item, path) for item in named
        )

    def _may_give_mlx(self, item: Import) -> bool:
        """Whether one of the names that an import takes is one that some file has of MLX."""
        return not self._bound_to_mlx.isdisjoint(item.names)

    @cached_property
    def _bound_to_mlx(self) -> set[str]:
        return {"*"}.union(*(scan.mlx for scan in self.scans.values()))

    def reaching(
        self,
        path: PurePosixPath,
        known: Mapping[PurePosixPath, bool],
        holds: Callable[[PurePosixPath], bool],
        follows: Callable[[Import], bool] | None = None,
    ) -> dict[PurePosixPath, bool]:
        """Whether something holds for a file or for one that it imports, itself or through others,
        by the imports alone that `follows` lets through, if it is given. The answer is given for
        every file on the way whose answer is not `known`; what such a file imports is looked at
        once."""
        importers: dict[PurePosixPath, list[PurePosixPath]] = {path: []}
        reaching: list[PurePosixPath] = []
        todo = [path]
        while todo:  # not by recursion: a chain of imports may be longer than one of calls
            file = todo.pop()
            if known.get(file, False) or holds(file):
                reaching.append(file)
            elif file not in known:
                for target in self._leads_to(file, follows):
                    if target not in importers:
                        importers[target] = []
                        todo.append(target)
                    importers[target].append(file)
        found = dict.fromkeys(importers, False)
        while reaching:
            file = reaching.pop()
            if not found[file]:
                found[file] = True
                reaching += importers[file]
        return found

    def _leads_to(
        self, path: PurePosixPath, follows: Callable[[Import], bool] | None
    ) -> Iterator[PurePosixPath]:
        """The files that a file imports, and those that it loads by names in its text."""
        for item in self.scans[path].imports:
            if follows is None or follows(item):
                yield from self.resolve(item, path)
        for name in self.scans[path].loaded if follows is None else ():
            yield from self.loaded(name, path)

    def loaded(self, name: str, path: PurePosixPath) -> list[PurePosixPath]:
        """The files that a module's name in `importlib.import_module(name)` may stand for, in the
        file `path`: `ANY` in it stands for a part of it that isn't known."""
        module = name.lstrip(".")
        if ANY not in name:
            # Relative to the package, if it has a dot; what is given as a package is left open.
            return self.resolve(Import(len(name) - len(module), module), path)
        if name not in self._loaded:
            self._loaded[name] = self._matching(module)
        return self._loaded[name]

    def _matching(self, module: str) -> list[PurePosixPath]:
        if not module.strip(f".{ANY}"):
            return []
        parts = "/".join(re.escape(part) for part in module.split("."))
        parts = parts.replace(re.escape(ANY), "[^/]+")
        pattern = re.compile(rf"(?:.*/)?{parts}(?:/__init__)?\.py")
        return [path for path in self.scans if pattern.fullmatch(path.as_posix())]

    def concerns(self, path: PurePosixPath) -> bool:
        """Whether a file may have to be edited: it reaches MLX."""
        return self._names_mlx and self.reaches_mlx(path)

    def read(self, path: PurePosixPath, limit: int = reading.SOURCE_LIMIT) -> bytes:
        """The bytes of a file of the tree.

        Raises:
            FileError: it can't be read.
        """
        return reading.read(self.base / path, self.base, limit)

    def _exists(self, path: PurePosixPath) -> bool:
        if path not in self.scans and self.look_further and (self.base / path).is_file():
            with suppress(FileError):  # then it is as if it were not there
                self.scans[path] = Scan.of(self.read(path))
        return path in self.scans
