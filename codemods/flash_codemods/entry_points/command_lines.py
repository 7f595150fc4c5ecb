"""Scripts whose command line is made by a library that no codemod adds flags to: their call reads
the environment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flash_integrate.inserted.snippets import FLAG_NAMES
from flash_integrate.notes import Note
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.edits import Edit, Insertion

_LIBRARIES = {
    "absl": "absl",
    "docopt": "docopt",
    "fire": "fire",
    "hydra": "hydra",
    "jsonargparse": "jsonargparse",
    "pydantic_settings": "pydantic-settings",
    "simple_parsing": "simple-parsing",
    "tyro": "tyro",
}
"""By the package that is imported."""
_OF_A_PACKAGE = {"transformers": "HfArgumentParser"}
"""The one name of a package that does more."""


def remarks(facts: FileFacts, edits: Sequence[Edit]) -> Iterator[Note]:
    """Which variables do what flags would."""
    inserted = [item.code for item in edits if isinstance(item, Insertion)]
    if any(FLAG_NAMES[0] in code for code in inserted):
        return
    for item in facts.module.imports:
        library = _LIBRARIES.get(item.package)
        if item.name is not None and _OF_A_PACKAGE.get(item.package) == item.name:
            library = item.name
        if library is not None:
            reason = (
                f"{library} makes its command line, which gets no flags: MLX_FLASH_DISABLE=1 and "
                "MLX_FLASH_BLOCK_SIZE=N in the environment do what they would"
            )
            yield Note(reason, item.line)
            return
