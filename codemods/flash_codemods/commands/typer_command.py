"""Commands of typer. Two annotated parameters on each command that runs the model, which it reads
first of all, or below its import of MLX.

Inserts: the parameters `disable_flash_attention` and `flash_block_size`, as
`Annotated[...]` where the file imports that, else with a `typer.Option` as default; the call.

Refuses: commands that have such an option, use their arguments as a whole or have a decorator that
may not hand them on; functions with `typer.Option` defaults that other code calls, which would be
handed those defaults; files in which `typer.Option` has no name. Those get the call alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from flash_codemods.commands.flags import edit_commands, imports_name, optional_text
from flash_codemods.commands.functions import (
    Command,
    commands_to_edit,
    name_in,
    refusal_of_options,
    used_as_functions,
)
from flash_codemods.commands.snippets import typer_parameters
from flash_integrate.notes import Refusal
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.edits import Edit

ORDER = 15
SUMMARY = (
    "typer commands: two parameters on the command that runs the model, "
    "the call as its first statement"
)
GIVES_FLAGS = True
REVIEW = "the parameters stand on the command that runs the model"


def match(facts: FileFacts) -> list[Command] | Refusal | None:
    commands = commands_to_edit(facts, "typer")
    if not commands:
        return None
    if name_in(facts, {"typer"}, "Option") is None:
        return Refusal("typer.Option has no name in this file")
    called = [] if imports_name(facts, "Annotated") else used_as_functions(facts, commands)
    for command in commands:
        if reason := refusal_of_options(facts, command):
            return Refusal(reason, command.statement.line)
        if command in called:
            return Refusal(
                f"{command.node.name} is also called as a function", command.statement.line
            )
    return commands


def edit(facts: FileFacts, match: Sequence[Command]) -> list[Edit]:
    annotated = imports_name(facts, "Annotated")
    option = name_in(facts, {"typer"}, "Option") or ""
    kind = optional_text(facts)

    def parameters(command: Command) -> list[str]:
        indent = command.node.col_offset + 4
        return typer_parameters(option, facts.style, kind, indent, annotated=annotated)

    return edit_commands(facts, match, parameters)
