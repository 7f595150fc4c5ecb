"""Finds the Python files and notebooks of a tree as git would list them: ignored, vendored, built
and hidden ones left out."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pathspec

from flash_integrate.disk import reading
from flash_integrate.disk.checkout import checkout_of, leads_out
from flash_integrate.errors import FileError

# A pattern with more of them may take for ever to be matched, see `slow_pattern`.
MOST_WILDCARDS = 4
SUFFIXES = {".py", ".ipynb"}
SHELL_SUFFIX = ".sh"
# A script that is named may have no suffix at all.
NAMED_SUFFIXES = SUFFIXES | {"", ".pyw"}
IGNORE_FILE = ".gitignore"
_SKIPPED_FOLDERS = {
    "venv",
    "env",
    "__pycache__",
    "site-packages",
    "node_modules",
    "build",
    "dist",
    "mlx_flash_runtime",  # a copy that --vendor made
}
# Folders for copies of other projects, in small letters: those that GitHub takes for vendored
# (https://github.com/github-linguist/linguist, vendor.yml), and pip's own name for its copies.
COPIES = {
    "vendor", "vendors", "_vendor", "third_party", "third-party", "thirdparty", "3rd_party",
    "3rd-party", "3rdparty", "extern", "external", "externals",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A file to look at. `base` is the folder from which its path is shown, as `git diff` would
    show it: the top of its git checkout, or the folder that was named where there is none.
    `problem` is why it, or a folder in its place, can't be read, where that is known already.
    `is_copied`: whether it lies in a folder for copies of other projects, and neither that folder
    nor one in it was named."""

    base: Path
    path: Path
    problem: str = ""
    is_copied: bool = False

    @cached_property
    def name(self) -> PurePosixPath:
        return PurePosixPath(self.path.relative_to(self.base).as_posix())


def is_skipped(folder: str) -> bool:
    """Whether a folder of that name holds nothing that the repo's authors run: hidden ones have
    caches, logs of tools, what was put away."""
    return folder.startswith(".") or folder in _SKIPPED_FOLDERS


def discover(
    paths: Iterable[Path], exclude: Iterable[str] = (), suffixes: Collection[str] = SUFFIXES
) -> Iterator[Found]:
    """The Python files and notebooks below `paths`, or the files with other `suffixes`, sorted,
    each once.

    A file that is named is taken whatever its surroundings. `exclude` are patterns as in
    `.gitignore`, relative to each folder of `paths`. Symbolic links are not followed: their target
    is found where it is, and is edited once. One that is named may not lead out of its repo.
    """
    excluded = pathspec.GitIgnoreSpec.from_lines(exclude)
    seen: set[Path] = set()
    named = []
    for path in paths:
        if (link := leads_out(path)) is None:
            named.append(path.resolve())
        else:
            folder = link.parent.resolve()
            problem = f"a link that leads out of its repo; if {link.resolve()} is meant, name that"
            yield Found(checkout_of(folder) or folder, folder / link.name, problem)
    folders = {real: real if real.is_dir() else real.parent for real in named}
    for real, folder in folders.items():
        # Of two folders of which one holds the other the outer one counts, in whatever order they
        # are named.
        outer = min(
            (other for other in folders.values() if folder.is_relative_to(other)),
            key=lambda it: len(it.parts),
        )
        base = checkout_of(outer) or outer
        found = (
            _below(folder, base, _Ignore(folder, excluded), named, suffixes)
            if real.is_dir()
            else [Found(base, real)]
        )
        for file in found:
            if file.path not in seen:
                seen.add(file.path)
                yield file


@dataclass(frozen=True)
class _Ignore:
    """Patterns that speak of paths below a folder."""

    folder: Path
    spec: pathspec.GitIgnoreSpec

    def verdict(self, path: Path, is_folder: bool) -> bool | None:
        """True to ignore, False to keep (a `!` pattern), None where no pattern matches."""
        name = path.relative_to(self.folder).as_posix() + ("/" if is_folder else "")
        return self.spec.check_file(name).include


def _below(
    folder: Path,
    base: Path,
    excluded: _Ignore,
    named: Collection[Path],
    suffixes: Collection[str],
) -> Iterator[Found]:
    """What is found below a folder, and in it and above it those `.gitignore` files that can't be
    read; `named` are the paths that were asked for, which are no copies."""
    ignores: list[_Ignore] = []
    for parent in _between(checkout_of(folder), folder):
        try:
            ignores += _read_ignore(parent, base)
        except FileError as error:
            yield Found(base, parent / IGNORE_FILE, str(error))
    yield from _walk(folder, base, [*ignores, excluded], named, suffixes)


def _walk(
    top: Path,
    base: Path,
    ignores: list[_Ignore],
    named: Collection[Path],
    suffixes: Collection[str],
) -> Iterator[Found]:
    # Not by recursion: folders may nest deeper than calls.
    todo = [(top, True, False, ignores)]
    while todo:
        folder, is_folder, is_copied, ignores = todo.pop()
        if not is_folder:
            yield Found(base, folder, is_copied=is_copied)
            continue
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            yield Found(base, folder, error.strerror or str(error))
            continue
        try:
            ignores = ignores + _read_ignore(folder, base)
        except FileError as error:
            yield Found(base, folder / IGNORE_FILE, str(error))
        for entry in entries:
            path, is_folder = folder / entry.name, entry.is_dir(follow_symlinks=False)
            # Neither a link nor a pipe, which one could wait for forever.
            if not (
                is_folder or (path.suffix in suffixes and entry.is_file(follow_symlinks=False))
            ):
                continue
            if is_folder and (is_skipped(entry.name) or os.path.exists(path / "pyvenv.cfg")):
                continue
            if not _ignored(path, is_folder, ignores):
                copies = is_copied or (is_folder and entry.name.lower() in COPIES)
                todo.append((path, is_folder, copies and path not in named, ignores))


def _ignored(path: Path, is_folder: bool, ignores: list[_Ignore]) -> bool:
    """The innermost file that has a word on the path decides, as in git."""
    verdicts = (ignore.verdict(path, is_folder) for ignore in reversed(ignores))
    return next((verdict for verdict in verdicts if verdict is not None), False)


def _between(top: Path | None, folder: Path) -> list[Path]:
    """The folders from the checkout's top down to the parent of `folder`."""
    if top is None:
        return []
    return [parent for parent in reversed(folder.parents) if parent == top or top in parent.parents]


def _read_ignore(folder: Path, base: Path) -> list[_Ignore]:
    """What the `.gitignore` of a folder says, if there is one.

    Raises:
        FileError: it can't be read.
    """
    data = reading.read_if_there(folder / IGNORE_FILE, base, reading.IGNORE_LIMIT)
    if data is None:
        return []
    lines = data.decode(errors="replace").splitlines()
    if (number := slow_pattern(lines)) is not None:
        raise FileError(
            f"line {number}: a pattern with more than {MOST_WILDCARDS} wildcards", number
        )
    return [_Ignore(folder, pathspec.GitIgnoreSpec.from_lines(lines))]


def slow_pattern(patterns: Iterable[str]) -> int | None:
    """The number (from 1) of the first pattern that may take for ever to be matched: the time
    grows with the length of a name to the power of the pattern's wildcards."""
    for number, pattern in enumerate(patterns, start=1):
        if not pattern.startswith("#") and len(re.findall(r"\*+", pattern)) > MOST_WILDCARDS:
            return number
    return None
