"""What the codemods of click and typer share: the parameters of a command, and the call that reads
them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from flash_codemods.commands.functions import Command
from flash_integrate.inserted.snippets import FLAG_NAMES, enable_by_flags
from flash_integrate.planning.starts import Starts
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.edits import Edit, Insertion, Splice
from flash_integrate.python.signature import Signature


def edit_commands(
    facts: FileFacts, commands: Iterable[Command], parameters: Callable[[Command], Sequence[str]]
) -> list[Edit]:
    """Two `parameters` in each command's signature, and the call as its first statement, or below
    the import of MLX that follows."""
    edits: list[Edit] = []
    lines = facts.source.text_lines()
    for command in commands:
        addition = Signature.of(command.node, lines).addition(
            parameters(command), facts.style.width
        )
        edits += [Splice(at, text) for at, text in addition]
        place = facts.first_line_of(command.statement)
        if place is not None:  # `match` has refused the others
            place = facts.get(Starts).below_mlx_import(place)
            call = enable_by_flags(*FLAG_NAMES, facts.style, place.column)
            code = "\n" * place.is_apart + call
            edits.append(Insertion(place.anchor, code, before=place.before))
    return edits


def imports_name(facts: FileFacts, name: str) -> bool:
    """Whether an import binds a name in any case: not in a function, nor under a condition."""
    return any(item.bound == name and item.always for item in facts.module.imports)


def optional_text(facts: FileFacts) -> str:
    """The annotation of a block size, which the runtime reads from its text, that may be left
    out."""
    return "Optional[str]" if imports_name(facts, "Optional") else "str | None"
