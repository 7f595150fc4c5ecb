"""`[tool.flash-integrate]` of the target's pyproject.toml, and the command line's word on top of
it."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pathspec

from flash_integrate.disk.checkout import checkout_of, leads_out
from flash_integrate.disk.reading import SETTINGS_LIMIT, read_if_there
from flash_integrate.errors import FileError
from flash_integrate.project.discover import MOST_WILDCARDS, slow_pattern
from flash_integrate.project.toml import read_toml
from flash_integrate.quoting import quoted

TABLE = "[tool.flash-integrate]"
KEYS = ("include", "exclude", "only", "skip")


class ConfigError(Exception):
    """A configuration that can't be used; the message names the file, or the option, and the
    key."""


@dataclass(frozen=True)
class Config:
    """Which files are looked at and which codemods are asked.

    `include` and `exclude` are patterns as in `.gitignore`, relative to the folder of `file`;
    `only` and `skip` are names of codemods (`known`, below, are all there are). Empty, it leaves
    everything as it is without a configuration.
    """

    file: Path | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    unproven: bool = False
    """Whether rewrites are offered that could not be proved; the command line alone says so."""

    def wants(self, codemod: str) -> bool:
        """Whether the codemod of this name is asked."""
        return (not self.only or codemod in self.only) and codemod not in self.skip

    def leaves_out(self, path: Path, *, is_folder: bool = False) -> str | None:
        """Why a path (absolute) is left out, or None. The file speaks of paths below its own
        folder alone.

        A folder is left out by `exclude` alone: what `include` names may lie below it.
        """
        name = self._below_the_file(path)
        if name is None:
            return None
        name += "/" if is_folder else ""
        if self._excluded.match_file(name):
            return f"{TABLE} excludes it"
        if self.include and not is_folder and not self._included.match_file(name):
            return f"{TABLE} does not include it"
        return None

    def names(self, path: Path) -> bool:
        """Whether `include` names a path (absolute)."""
        name = self._below_the_file(path)
        return name is not None and self._included.match_file(name)

    def _below_the_file(self, path: Path) -> str | None:
        """The path as the file's patterns mean it; None where it does not lie below the file."""
        if self.file is None or not path.is_relative_to(self.file.parent):
            return None
        return path.relative_to(self.file.parent).as_posix()

    @cached_property
    def _included(self) -> pathspec.GitIgnoreSpec:
        return pathspec.GitIgnoreSpec.from_lines(self.include)

    @cached_property
    def _excluded(self) -> pathspec.GitIgnoreSpec:
        return pathspec.GitIgnoreSpec.from_lines(self.exclude)


def load_for(paths: Iterable[Path], known: Collection[str]) -> Config:
    """The configuration of a run over several paths, which have to agree on it. Links out of their
    repo have none.

    Raises:
        ConfigError: as `load`, and where the paths are configured by different files.
    """
    configs = {path: load(path, known) for path in paths if leads_out(path) is None}
    found = {config.file: config for config in configs.values()}
    if len(found) > 1:
        lines = [
            f"  {quoted(path)}: {quoted(config.file) if config.file else 'no such table'}"
            for path, config in configs.items()
        ]
        raise ConfigError(
            "\n".join(
                [f"these paths do not share one {TABLE}; name them in runs of their own:", *lines]
            )
        )
    return next(iter(found.values()), Config())


def load(path: Path, known: Collection[str]) -> Config:
    """The configuration for what lies at `path`: that of the nearest pyproject.toml with the
    table, looked for from `path` upward to the top of its git checkout. A nested project's file
    without the table hides nothing.

    Raises:
        ConfigError: such a file can't be read, is not valid TOML, or has a wrong setting.
    """
    for file in _pyprojects(path):
        table = _read_table(file)
        if table is not None:
            return _checked(file, table, known)
    return Config()


def merge(
    config: Config, known: Collection[str], *, only: Iterable[str] = (), skip: Iterable[str] = ()
) -> Config:
    """The configuration with `--only` in the place of the file's choice of codemods, and `--skip`
    added to it.

    Raises:
        ConfigError: an option names no codemod, or both name the same one.
    """
    only, skip = tuple(only), tuple(skip)
    _check_codemods("--only", only, known)
    _check_codemods("--skip", skip, known)
    if clash := set(only) & set(skip):
        raise ConfigError(f"--only and --skip both name {min(clash)}")
    kept = tuple(name for name in config.skip if name not in only)
    return dataclasses.replace(config, only=only or config.only, skip=(*kept, *skip))


def check_patterns(where: str, patterns: Iterable[str]) -> None:
    """Checks that each is a pattern as in `.gitignore`.

    Raises:
        ConfigError: one is not; `where` says in the message where it stands.
    """
    for pattern in patterns:
        if slow_pattern([pattern]) is not None:
            raise ConfigError(f"{where}: {pattern!r} has more than {MOST_WILDCARDS} wildcards")
        try:
            pathspec.GitIgnoreSpec.from_lines([pattern])
        except ValueError as error:
            raise ConfigError(f"{where}: {pattern!r} is not a pattern of .gitignore") from error


def _pyprojects(path: Path) -> Iterator[Path]:
    """The pyproject.toml files that may hold the table, nearest first."""
    real = path.resolve()
    folder = real if real.is_dir() else real.parent
    top = checkout_of(folder)
    for parent in (folder, *folder.parents):
        if os.path.lexists(file := parent / "pyproject.toml"):
            yield file
        if parent == top:
            return


def _read_table(file: Path) -> dict[str, Any] | None:
    try:
        data = read_if_there(file, checkout_of(file.parent) or file.parent, SETTINGS_LIMIT)
        document = read_toml("" if data is None else data.decode())
    except FileError as error:
        raise ConfigError(f"{quoted(file)}: {error}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise ConfigError(f"{quoted(file)}: not valid TOML: {error}") from error
    tool = document.get("tool", {})
    table = tool.get("flash-integrate") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ConfigError(f"{quoted(file)}: tool.flash-integrate must be a table")
    return table


def _checked(file: Path, table: dict[str, Any], known: Collection[str]) -> Config:
    if unknown := table.keys() - set(KEYS):
        raise ConfigError(
            f"{quoted(file)}: {TABLE} has no key {min(unknown)!r}; it has {', '.join(KEYS)}"
        )
    for key, value in table.items():
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{quoted(file)}: {TABLE} {key} must be a list of strings")
    values: dict[str, Any] = {key: tuple(value) for key, value in table.items()}
    for key in ("include", "exclude"):
        check_patterns(f"{quoted(file)}: {TABLE} {key}", values.get(key, ()))
    for key in ("only", "skip"):
        _check_codemods(f"{quoted(file)}: {TABLE} {key}", values.get(key, ()), known)
    if clash := set(values.get("only", ())) & set(values.get("skip", ())):
        raise ConfigError(f"{quoted(file)}: {TABLE} only and skip both name {min(clash)}")
    return Config(file, **values)


def _check_codemods(where: str, names: tuple[str, ...], known: Collection[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise ConfigError(f"{where}: no codemod is called {unknown[0]!r}; {hint}")
