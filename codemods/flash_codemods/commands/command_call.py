"""Commands of click and typer that can't take the flags. The call is the first statement of the
command.

Inserts: the call, without flags: `MLX_FLASH_DISABLE` and `MLX_FLASH_BLOCK_SIZE` do
what flags would.

Refuses: commands whose body shares its line with the `def`.
"""

from __future__ import annotations

from flash_codemods.commands.functions import commands_to_edit
from flash_codemods.enable import enable_at
from flash_integrate.notes import Refusal
from flash_integrate.project.workspace import FileFacts, InsertionPoint
from flash_integrate.python.edits import Insertion

ORDER = 16
SUMMARY = (
    "click and typer commands that can't take the flags: the call as first statement of the command"
)
REVIEW = "the environment variables are enough: the command gets no options of its own"


def match(facts: FileFacts) -> list[InsertionPoint] | Refusal | None:
    commands = commands_to_edit(facts)
    if not commands:
        return None
    points = [facts.first_line_of(command.statement) for command in commands]
    if None in points:
        return Refusal(
            "the command's body shares its line with the def",
            commands[points.index(None)].statement.line,
        )
    return [point for point in points if point is not None]


def edit(facts: FileFacts, match: list[InsertionPoint]) -> list[Insertion]:
    return enable_at(facts, match)
