"""Modules that a runner imports, rather than starts: told by what each framework marks them with.
What else starts an application (`streamlit run`, `panel serve`, `ui.run()`) runs its module as a
script."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from flash_integrate.python.module import Module
from flash_integrate.python.syntax import Function, dotted, walk


@dataclass(frozen=True)
class Framework:
    """A package, and what of it marks a module: `instances`, classes of which it binds one (`app =
    FastAPI()`); `decorators` of functions and classes that the runner calls; `bases` of classes
    that it makes. `routers` are classes of what gathers functions for an application elsewhere."""

    package: str
    instances: tuple[str, ...] = ()
    decorators: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    routers: tuple[str, ...] = ()


FRAMEWORKS = (
    Framework("fastapi", instances=("FastAPI",), routers=("APIRouter",)),
    Framework("flask", instances=("Flask",), routers=("Blueprint",)),
    Framework("quart", instances=("Quart",)),
    Framework("starlette", instances=("Starlette",)),
    Framework("litestar", instances=("Litestar",)),
    Framework("sanic", instances=("Sanic",)),
    Framework("dash", instances=("Dash",)),
    Framework("fastmcp", instances=("FastMCP",)),
    Framework("mcp", instances=("FastMCP",)),
    Framework("celery", instances=("Celery",), decorators=("shared_task",)),
    Framework("modal", instances=("App", "Stub")),
    Framework("chainlit", decorators=("on_chat_start", "on_chat_resume", "on_message")),
    Framework("ray", decorators=("deployment", "remote")),
    Framework("bentoml", instances=("Service",), decorators=("service",)),
    Framework("litserve", bases=("LitAPI",)),
)
_INSTANCES = {(item.package, name) for item in FRAMEWORKS for name in item.instances}
_DECORATORS = {(item.package, name) for item in FRAMEWORKS for name in item.decorators}
_BASES = {(item.package, name) for item in FRAMEWORKS for name in item.bases}
_ROUTERS = {(item.package, name) for item in FRAMEWORKS for name in item.routers}


def makes_application(module: Module, node: ast.stmt) -> bool:
    """Whether a statement of a module binds an application: `app = FastAPI()`."""
    return _made_by(module, node) in _INSTANCES


def makes_router(module: Module, node: ast.stmt) -> bool:
    """Whether a statement binds a part of an application: `router = APIRouter()`."""
    return _made_by(module, node) in _ROUTERS


def is_factory(module: Module, node: ast.stmt) -> bool:
    """Whether a statement defines a function that makes an application, `def create_app():`."""
    if not isinstance(node, Function):
        return False
    made = [part.func for part in walk(node) if isinstance(part, ast.Call)]
    return any(_origin(module, function) in _INSTANCES for function in made)


def _made_by(module: Module, node: ast.stmt) -> tuple[str, str] | None:
    """The class, or function, whose call a statement gives a name."""
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    return _origin(module, value.func) if isinstance(value, ast.Call) else None


def is_imported_by_runner(module: Module) -> bool:
    """Whether a framework's runner imports a module, and calls what it defines."""
    nodes = module.tree.body
    return any(makes_application(module, node) or _is_marked(module, node) for node in nodes)


def _is_marked(module: Module, node: ast.stmt) -> bool:
    """Whether a definition has a framework's decorator or base class."""
    if not isinstance(node, Function | ast.ClassDef):
        return False
    decorators = [item.func if isinstance(item, ast.Call) else item for item in node.decorator_list]
    bases: Iterable[ast.expr] = node.bases if isinstance(node, ast.ClassDef) else ()
    by_decorator = any(_origin(module, part) in _DECORATORS for part in decorators)
    return by_decorator or any(_origin(module, part) in _BASES for part in bases)


def _origin(module: Module, node: ast.expr) -> tuple[str, str]:
    """The package of an expression by the imports, and its name there."""
    parts = (module.qualified(dotted(node)) or "").split(".")
    return parts[0], parts[-1]
