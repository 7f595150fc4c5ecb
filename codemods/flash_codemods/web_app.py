"""Modules that hold a web application and are started by a server (`uvicorn module:app`, `flask run`).

Inserts: the import and the call right below the imports, without flags: `MLX_FLASH_DISABLE` and
`MLX_FLASH_BLOCK_SIZE` do what flags would. The call runs when the server imports the module.

Refuses: nothing.
"""

from __future__ import annotations

import ast

from flash_codemods._runtime_import import import_runtime
from flash_integrate.codemod import Insertion
from flash_integrate.facts.file_facts import FileFacts
from flash_integrate.snippets import enable_call
from flash_integrate.syntax import dotted

ORDER = 18
SUMMARY = "web applications that a server imports: the call right below the imports"
REVIEW = "the server imports this module before it answers the first request"

FRAMEWORKS = {"FastAPI", "Flask", "Quart", "Starlette", "Litestar", "Sanic"}


def match(facts: FileFacts) -> bool | None:
    """True for a module that binds an application at module level."""
    calls = [item.node.value for item in facts.module_level if isinstance(item.node, ast.Assign | ast.AnnAssign)]
    created = (dotted(call.func) or "" for call in calls if isinstance(call, ast.Call))
    return True if any(name.rpartition(".")[2] in FRAMEWORKS for name in created) else None


def edit(facts: FileFacts, match: bool) -> list[Insertion]:
    return [import_runtime(facts, then=enable_call())]
