"""Modules that hold a web application and are started by a server (`uvicorn module:app`, `flask
run`).

Inserts: the call right below the imports, without flags: `MLX_FLASH_DISABLE` and
`MLX_FLASH_BLOCK_SIZE` do what flags would. The call runs when the server imports the module.

Refuses: applications that a script with flags serves, which a call on import would override.
"""

from __future__ import annotations

from flash_codemods.enable import enable_below_imports
from flash_codemods.entry_points.started_elsewhere import served_by_another
from flash_integrate.notes import Refusal
from flash_integrate.project.names import makes_application
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.edits import Insertion
from flash_integrate.python.syntax import assignments

ORDER = 18
SUMMARY = "web applications that a server imports: the call right below the imports"
REVIEW = "the server imports this module before it answers the first request"


def match(facts: FileFacts) -> bool | Refusal | None:
    """True for a module that binds an application at module level."""
    made = (item.node for item in facts.module_level if makes_application(item.node))
    names = [name for node in made for name, _ in assignments(node)]
    return served_by_another(facts, names[0]) or True if names else None


def edit(facts: FileFacts, match: bool) -> list[Insertion]:
    return [enable_below_imports(facts)]
