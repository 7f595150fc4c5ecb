"""Scripts without a command line, with `if __name__ == "__main__":`. The call is the guard's first
statement, or stands below the import of MLX for which the function that it starts prepares.

Inserts: the call, without flags: `MLX_FLASH_DISABLE` and `MLX_FLASH_BLOCK_SIZE` do
what flags would.

Refuses: a guard on one line, into which no line can be inserted; a guard that only starts a file
which turns the runtime on itself; a guard in which a module of a package, imported by others, is
tried out.
"""

from __future__ import annotations

from flash_codemods.enable import enable_at
from flash_codemods.entry_points.started_elsewhere import handed_over
from flash_integrate.notes import Refusal
from flash_integrate.planning.starts import Starts
from flash_integrate.project.workspace import FileFacts, InsertionPoint
from flash_integrate.python.edits import Insertion

ORDER = 20
SUMMARY = "scripts without a command line: the call as first statement under the __main__ guard"
REVIEW = "the guard is the way the script is started"


def match(facts: FileFacts) -> InsertionPoint | Refusal | None:
    starts = facts.get(Starts)
    if starts.guard is None:
        return None
    if refusal := handed_over(facts, starts.guard_body):
        return refusal
    if starts.tries_out_library:
        return Refusal("a library module: its guard only tries it out", starts.guard.line)
    return facts.first_line_of(starts.guard) or Refusal(
        "no line can be inserted into a guard that is written on one line", starts.guard.line
    )


def edit(facts: FileFacts, match: InsertionPoint) -> list[Insertion]:
    return enable_at(facts, [facts.get(Starts).in_started_function() or match])
