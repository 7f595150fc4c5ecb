"""What a codemod is: a module in one of the rooms of `flash_codemods`, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any, Protocol

from flash_integrate.project.file_facts import FileFacts
from flash_integrate.python.signature import Position
from flash_integrate.python.syntax import Place


@dataclass(frozen=True)
class Insertion:
    """Whole statements to insert before or after the statement at `anchor`, in its suite.

    `code` is written at column 0; a leading newline stands for a blank line. An anchor of None is
    the module's start. `needs` is another file without whose change this one would not run.
    """

    anchor: Place | None
    code: str
    before: bool = False
    needs: PurePosixPath | None = None


@dataclass(frozen=True)
class Splice:
    """Text to insert at a line and column of the source, for what stands in no suite: the options
    above a command, the parameters in its signature. Newlines are `\\n`; everything else is in the
    file's own style."""

    at: Position
    text: str


Edit = Insertion | Splice


@dataclass(frozen=True)
class Refusal:
    """Why a codemod that is meant for a file's style does not change this file."""

    reason: str
    line: int | None = None


class Codemod(Protocol):
    """`match` reads facts and returns what `edit` needs, a refusal, or None for a file of another
    style."""

    ORDER: int
    """Codemods are asked in this order; the first that matches edits the file."""
    SUMMARY: str
    """What it inserts, in one line."""
    REVIEW: str
    """What a reviewer should look at."""

    def match(self, facts: FileFacts) -> Any | Refusal | None: ...

    def edit(self, facts: FileFacts, match: Any) -> Sequence[Edit]: ...


def name_of(codemod: Codemod) -> str:
    """The codemod's name: its file's, with dashes."""
    module: str = codemod.__name__  # type: ignore[attr-defined]  # a codemod is a module
    return module.rpartition(".")[2].replace("_", "-")


@cache
def registry() -> tuple[Codemod, ...]:
    """Every codemod of the package, in the order in which they are asked: each module of its rooms
    that says where it stands in that order."""
    import flash_codemods

    found = pkgutil.walk_packages(flash_codemods.__path__, "flash_codemods.")
    modules: list[Any] = [importlib.import_module(item.name) for item in found if not item.ispkg]
    codemods = [module for module in modules if hasattr(module, "ORDER")]
    return tuple(sorted(codemods, key=lambda module: module.ORDER))
