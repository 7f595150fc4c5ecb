"""Scripts that do their work at module level. The call comes right below the imports, before the
work.

Inserts: the call, without flags: `MLX_FLASH_DISABLE` and `MLX_FLASH_BLOCK_SIZE` do
what flags would.

Refuses: modules that other files import, where a call would run on import; scripts that only start
a file which turns the runtime on itself.
"""

from __future__ import annotations

from flash_codemods.enable import enable_below_imports
from flash_codemods.entry_points.started_elsewhere import handed_over
from flash_integrate.notes import Refusal
from flash_integrate.planning.starts import Starts
from flash_integrate.project.applications import makes_router
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.edits import Insertion

ORDER = 30
SUMMARY = "scripts that work at module level: the call right below the imports"
REVIEW = "the file is started as a script, and never imported"


def match(facts: FileFacts) -> bool | Refusal | None:
    starts = facts.get(Starts)
    if starts.first_work is None or starts.guard is not None:
        return None
    if any(makes_router(facts.module, node) for node in facts.tree.body):
        return None  # a part of an application, which imports it
    if facts.is_imported:
        return Refusal("works at module level, but other files import it", starts.first_work.line)
    return handed_over(facts, facts.tree.body) or True


def edit(facts: FileFacts, match: bool) -> list[Insertion]:
    return [enable_below_imports(facts)]
