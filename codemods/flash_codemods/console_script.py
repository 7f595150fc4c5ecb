"""Functions that the project's packaging installs as commands. The call is the function's first statement.

Inserts: the import and the call, without flags: `MLX_FLASH_DISABLE` and `MLX_FLASH_BLOCK_SIZE` do what flags would.

Refuses: a function whose body shares its line with the `def`.
"""

from __future__ import annotations

from flash_codemods._runtime_import import call_at
from flash_integrate.codemod import Insertion, Refusal
from flash_integrate.facts.file_facts import FileFacts, Spot

ORDER = 25
SUMMARY = "console scripts without a command line of their own: the call as first statement of the installed function"
REVIEW = "the function is the command's entry point in pyproject.toml, setup.cfg or setup.py"


def match(facts: FileFacts) -> list[Spot] | Refusal | None:
    if not facts.console_functions:
        return None
    places = [facts.first_line_of(function) for function in facts.console_functions]
    if None in places:
        return Refusal("the function's body shares its line with the def", facts.console_functions[0].line)
    return [place for place in places if place is not None]


def edit(facts: FileFacts, match: list[Spot]) -> list[Insertion]:
    return call_at(facts, match)
