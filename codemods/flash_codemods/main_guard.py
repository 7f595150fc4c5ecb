"""Scripts without a command line, with `if __name__ == "__main__":`. The call is the guard's first statement.

Inserts: the import and the call, without flags: `MLX_FLASH_DISABLE` and `MLX_FLASH_BLOCK_SIZE` do what flags would.

Refuses: a guard on one line, into which no line can be inserted.
"""

from __future__ import annotations

from flash_codemods._runtime_import import call_before
from flash_integrate.codemod import Insertion, Refusal
from flash_integrate.facts.file_facts import FileFacts
from flash_integrate.syntax import Place

ORDER = 20
SUMMARY = "scripts without a command line: the call as first statement under the __main__ guard"
REVIEW = "the guard is the way the script is started"


def match(facts: FileFacts) -> Place | Refusal | None:
    if facts.guard is None:
        return None
    place = facts.first_line_of(facts.guard)
    return place or Refusal("no line can be inserted into a guard that is written on one line", facts.guard.line)


def edit(facts: FileFacts, match: Place) -> list[Insertion]:
    return call_before(facts, [match])
