"""Modules that a runner imports (`uvicorn module:app`, `chainlit run`, `celery worker`), whether
one process does so or several, and those whose function it calls for the application.

Inserts: the call right below the imports, without flags: `MLX_FLASH_DISABLE` and
`MLX_FLASH_BLOCK_SIZE` do what flags would. The call runs when the module is imported, and does what
the script that serves the application has chosen by flags of its own.

Known are the frameworks of `project/applications.py`, each by what marks its modules.
"""

from __future__ import annotations

import ast

from flash_codemods.enable import inherit_below_imports
from flash_integrate.attention.signs import reached
from flash_integrate.planning.installed import installed_names
from flash_integrate.project.applications import is_imported_by_runner
from flash_integrate.project.factories import application_names, uncalled_factories
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.edits import Insertion
from flash_integrate.python.syntax import Function, dotted

ORDER = 18
SUMMARY = (
    "applications of FastAPI, chainlit, Celery and the like, which a runner imports: "
    "the call right below the imports"
)
REVIEW = "the runner imports this module before it calls what is in it"


def match(facts: FileFacts) -> bool | None:
    is_one = is_imported_by_runner(facts.module) or any(application_names(facts))
    return is_one or _is_called_by_runner(facts) or _adds_to_another(facts) or None


def _is_called_by_runner(facts: FileFacts) -> bool:
    """Whether nothing but a runner calls a function of the module that makes an application: one
    that is installed as a command serves it itself."""
    return any(name not in installed_names(facts) for name in uncalled_factories(facts))


def _adds_to_another(facts: FileFacts) -> bool:
    """Whether the module's functions belong to an application of another file, `@app.task`, that
    has no call since it leads to no attention itself."""
    functions = [item.node for item in facts.module_level if isinstance(item.node, Function)]
    decorators = [item for function in functions for item in function.decorator_list]
    for decorator in decorators:
        name = dotted(decorator.func if isinstance(decorator, ast.Call) else decorator) or ""
        found = facts.workspace.definition(facts.name, name.partition(".")[0])
        if found is None or "." not in name:
            continue
        symbols = facts.workspace.names.symbols(found[0].name)
        if symbols is not None and symbols.definitions[found[1]].is_application:
            return not found[0].get(reached)
    return False


def edit(facts: FileFacts, match: bool) -> list[Insertion]:
    return [inherit_below_imports(facts)]
