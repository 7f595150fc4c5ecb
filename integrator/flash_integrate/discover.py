"""Finds the Python files and notebooks of a tree as git would list them: ignored, vendored and built files left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pathspec

from flash_integrate.errors import FileError

MOST_WILDCARDS = 4
SUFFIXES = {".py", ".ipynb"}
# A script that is named may have no suffix at all.
NAMED_SUFFIXES = SUFFIXES | {"", ".pyw"}
SKIPPED_FOLDERS = {
    ".git",
    ".hg",
    ".svn",
    ".venv",
    "venv",
    "env",
    ".tox",
    ".nox",
    ".eggs",
    "__pycache__",
    ".ipynb_checkpoints",
    "site-packages",
    "node_modules",
    "build",
    "dist",
    "mlx_flash_runtime",  # a copy that --vendor made
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
}


@dataclass(frozen=True)
class Found:
    """A file to look at. `base` is the folder from which its path is shown, as `git diff` would show it:
    the top of its git checkout, or the folder that was named where there is none."""

    base: Path
    path: Path

    @property
    def name(self) -> PurePosixPath:
        return PurePosixPath(self.path.relative_to(self.base).as_posix())


def discover(paths: Iterable[Path], exclude: Iterable[str] = ()) -> Iterator[Found]:
    """The Python files and notebooks below `paths`, sorted, each once.

    A file that is named is taken whatever its surroundings. `exclude` are patterns as in `.gitignore`, relative to
    each folder of `paths`. Symbolic links are not followed: their target is found where it is, and is edited once.
    """
    excluded = pathspec.GitIgnoreSpec.from_lines(exclude)
    seen: set[Path] = set()
    named = [path.resolve() for path in paths]
    folders = {real: real if real.is_dir() else real.parent for real in named}
    for real, folder in folders.items():
        # Of two folders of which one holds the other the outer one counts, in whatever order they are named.
        outer = min((other for other in folders.values() if folder.is_relative_to(other)), key=lambda it: len(it.parts))
        base = checkout_of(outer) or outer
        ignores = [*_ignores_above(folder, checkout_of(folder)), _Ignore(folder, excluded)]
        for file in _walk(folder, ignores) if real.is_dir() else [real]:
            if file not in seen:
                seen.add(file)
                yield Found(base, file)


def checkout_of(folder: Path) -> Path | None:
    """The top of the git checkout that holds `folder`, if any."""
    return next((parent for parent in (folder, *folder.parents) if os.path.exists(parent / ".git")), None)


@dataclass(frozen=True)
class _Ignore:
    """Patterns that speak of paths below a folder."""

    folder: Path
    spec: pathspec.GitIgnoreSpec

    def verdict(self, path: Path, is_folder: bool) -> bool | None:
        """True to ignore, False to keep (a `!` pattern), None where no pattern matches."""
        name = path.relative_to(self.folder).as_posix() + ("/" if is_folder else "")
        return self.spec.check_file(name).include


def _walk(top: Path, ignores: list[_Ignore]) -> Iterator[Path]:
    todo = [(top, True, ignores)]  # not by recursion: folders may nest deeper than calls
    while todo:
        folder, is_folder, ignores = todo.pop()
        if not is_folder:
            yield folder
            continue
        ignores = ignores + _read_ignore(folder)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
        except OSError:
            yield folder  # whoever reads it reports why it can't be read
            continue
        for entry in entries:
            path, is_folder = folder / entry.name, entry.is_dir(follow_symlinks=False)
            # Neither a link nor a pipe, which one could wait for forever.
            if not (is_folder or (path.suffix in SUFFIXES and entry.is_file(follow_symlinks=False))):
                continue
            if is_folder and (entry.name in SKIPPED_FOLDERS or os.path.exists(path / "pyvenv.cfg")):
                continue
            if not _ignored(path, is_folder, ignores):
                todo.append((path, is_folder, ignores))


def _ignored(path: Path, is_folder: bool, ignores: list[_Ignore]) -> bool:
    """The innermost file that has a word on the path decides, as in git."""
    verdicts = (ignore.verdict(path, is_folder) for ignore in reversed(ignores))
    return next((verdict for verdict in verdicts if verdict is not None), False)


def _read_ignore(folder: Path) -> list[_Ignore]:
    try:
        text = (folder / ".gitignore").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = text.splitlines()
    if (number := slow_pattern(lines)) is not None:
        raise FileError(
            f"{folder / '.gitignore'}:{number}: a pattern with more than {MOST_WILDCARDS} wildcards", number
        )
    return [_Ignore(folder, pathspec.GitIgnoreSpec.from_lines(lines))]


def slow_pattern(patterns: Iterable[str]) -> int | None:
    """The number (from 1) of the first pattern that may take for ever to be matched: the time grows with the length of
    a name to the power of the pattern's wildcards."""
    for number, pattern in enumerate(patterns, start=1):
        if not pattern.startswith("#") and len(re.findall(r"\*+", pattern)) > MOST_WILDCARDS:
            return number
    return None


def _ignores_above(folder: Path, top: Path | None) -> list[_Ignore]:
    """The `.gitignore` files from the checkout's top down to the parent of `folder`."""
    if top is None:
        return []
    between = [parent for parent in folder.parents if parent == top or top in parent.parents]
    return [ignore for parent in reversed(between) for ignore in _read_ignore(parent)]
