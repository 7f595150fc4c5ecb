"""What a codemod is: a module in one of the rooms of `flash_codemods`, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

from flash_integrate.notes import Note, Refusal
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.edits import Edit


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

    # A codemod may also have
    #   notes(facts, match): what a reviewer should know of this change
    #   explain(facts): lines on what it knows of a file
    #   together(facts, statements): which of the inserted statements stand or fall together
    #   GIVES_FLAGS: whether a file that it refuses goes without flags
    #   BESIDE: whether it edits a file beside the codemod that was chosen for it


def name_of(codemod: Codemod) -> str:
    """The codemod's name: its file's, with dashes."""
    module: str = codemod.__name__  # type: ignore[attr-defined]  # a codemod is a module
    return module.rpartition(".")[2].replace("_", "-")


def offered() -> dict[str, str]:
    """What `only` and `skip` can name, and what each inserts."""
    return {name_of(codemod): codemod.SUMMARY for codemod in (*registry(), *rewriters())}


def asked(codemod: Codemod, name: str, *args: Any) -> Any:
    """What a codemod answers to a question that not every one knows; None from those."""
    function = getattr(codemod, name, None)
    return None if function is None else function(*args)


def remarks(facts: FileFacts, edits: Sequence[Edit]) -> list[Note]:
    """What the rooms have to say of a file that gets these edits, whichever codemod makes them:
    modules with a `remarks(facts, edits)`."""
    rooms = [module for module in _modules() if hasattr(module, "remarks")]
    return [note for module in rooms for note in module.remarks(facts, edits)]


@cache
def registry() -> tuple[Codemod, ...]:
    """Every codemod of the package, in the order in which they are asked: each module of its rooms
    that says where it stands in that order."""
    codemods = [module for module in _modules() if hasattr(module, "ORDER")]
    return tuple(sorted(codemods, key=lambda module: module.ORDER))


def rewriters() -> tuple[Any, ...]:
    """The codemods that change a model's own code, in whatever file: modules with a SUMMARY, a
    REVIEW, `examine(source)` and `begin(source, width=, processes=)`."""
    return tuple(module for module in _modules() if hasattr(module, "examine"))


@cache
def _modules() -> tuple[Any, ...]:
    import flash_codemods

    found = pkgutil.walk_packages(flash_codemods.__path__, "flash_codemods.")
    return tuple(importlib.import_module(item.name) for item in found if not item.ispkg)
