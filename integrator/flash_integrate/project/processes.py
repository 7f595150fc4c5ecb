"""What a project runs in processes that it starts: functions, and applications that a server
imports in each of its workers. A process started by spawn, as on macOS, imports the function's
module and runs nothing that its parent ran."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from flash_integrate.errors import FileError
from flash_integrate.project.kinds import is_test
from flash_integrate.project.scan import Import, Scan
from flash_integrate.project.workspace import FileFacts, Workspace
from flash_integrate.python.module import Module
from flash_integrate.python.syntax import Function, dotted, holds, last_name, method, walk

_STARTERS = {"multiprocessing", "concurrent", "torch", "uvicorn"}
"""The packages, one of which a file imports that starts processes."""
_POOLS = {"Pool", "ProcessPoolExecutor"}
_RUN_IN_POOL = {
    "apply", "apply_async", "map", "map_async", "imap", "imap_unordered", "starmap",
    "starmap_async", "submit",
}  # fmt: skip


@dataclass(frozen=True)
class Started:
    """What runs in a process of its own: the function or method `name` of the file `home`, or with
    no name the file as it is imported. Without a `home` it was not found in the project. `line` is
    where the file `by` starts it."""

    by: PurePosixPath
    line: int
    home: PurePosixPath | None = None
    name: str = ""


class Processes:
    """The processes that the files of a project start, tests aside."""

    def __init__(self, workspace: Workspace) -> None:
        project = workspace.project
        starting = {path for path, scan in list(project.scans.items()) if _may_start(scan)}
        # Who imports a class that starts processes gives it the function.
        users = {user for path in starting for user in project.importers.get(path, ())}
        self._found = [
            started
            for path in sorted(starting | users)
            if not is_test(path) and project.may_attend(path)
            for started in _of_file(workspace, path)
        ]

    def running(self, home: PurePosixPath) -> list[Started]:
        """What of a file runs in processes of its own, in whichever file they are started."""
        return [item for item in self._found if item.home == home]

    def started_elsewhere(self, by: PurePosixPath) -> tuple[Started, ...]:
        """What a file starts that is in other files."""
        return tuple(item for item in self._found if item.by == by and item.home not in (by, None))

    def lost(self, by: PurePosixPath) -> list[Started]:
        """The processes that a file starts, and what they run was not found."""
        return [item for item in self._found if item.by == by and item.home is None]


def _may_start(scan: Scan) -> bool:
    return any(item.module.partition(".")[0] in _STARTERS for item in scan.imports)


def _of_file(workspace: Workspace, path: PurePosixPath) -> Iterator[Started]:
    try:
        facts = workspace.facts(path)
        module = facts.module
    except FileError:  # reported when the file's own turn comes
        return
    for node in module.of_kind(ast.ClassDef):
        if any(_is_process(module, base) for base in node.bases):
            yield Started(path, node.lineno, path, f"{node.name}.run")
    pools = set(_pools(module))
    for call in module.of_kind(ast.Call):
        for target in _targets(facts, call, pools):
            yield _function(facts, call, target)
        yield from _applications(facts, call)


def _targets(facts: FileFacts, call: ast.Call, pools: set[str]) -> Iterator[ast.expr]:
    """The functions that a call has run in another process."""
    module = facts.module
    given = {item.arg: item.value for item in call.keywords}
    if "target" in given and (_is_process(module, call.func) or _makes_process(facts, call)):
        yield given["target"]
    if _is_pool(module, call) and "initializer" in given:
        yield given["initializer"]
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    is_of_pool = dotted(owner) in pools or _is_pool(module, owner)
    if is_of_pool and method(call) in _RUN_IN_POOL:
        yield from call.args[:1]
    if method(call) == "run_in_executor" and call.args and dotted(call.args[0]) in pools:
        yield from call.args[1:2]


def _is_process(module: Module, node: ast.expr) -> bool:
    """Whether an expression is the class `Process`, of `multiprocessing` or a context of it."""
    if last_name(node) != "Process":
        return False
    # A context (`get_context("spawn").Process`, `self._ctx.Process`) is no import.
    qualified = module.qualified(dotted(node))
    return qualified is None or "multiprocessing" in qualified


def _makes_process(facts: FileFacts, call: ast.Call) -> bool:
    """Whether a call makes an object of a class of the project that starts a process."""
    name = dotted(call.func) or ""
    found = facts.workspace.definition(facts.name, name)
    home, defined = (facts, name) if found is None else found
    node = home.module.defines(defined)
    inner = walk(node) if isinstance(node, ast.ClassDef) else []
    calls = [part.func for part in inner if isinstance(part, ast.Call)]
    return any(_is_process(home.module, function) for function in calls)


def _is_pool(module: Module, node: ast.expr | None) -> bool:
    """Whether an expression makes a pool of processes; one of `multiprocessing.dummy` has
    threads."""
    if not isinstance(node, ast.Call) or last_name(node.func) not in _POOLS:
        return False
    imported = module.qualified(dotted(node.func))
    if imported is None:  # that of a context: `get_context("spawn").Pool()`
        return isinstance(node.func, ast.Attribute)
    return imported.partition(".")[0] in _STARTERS and "dummy" not in imported


def _pools(module: Module) -> Iterator[str]:
    """The names that pools get."""
    for name, value in module.all_assignments:
        if _is_pool(module, value):
            yield name
    for item in module.of_kind(ast.withitem):
        bound = dotted(item.optional_vars)
        if bound is not None and _is_pool(module, item.context_expr):
            yield bound


def _function(facts: FileFacts, call: ast.Call, target: ast.expr) -> Started:
    """What a process runs whose function an expression names, `partial(work, model)` too."""
    is_partial = isinstance(target, ast.Call) and (dotted(target.func) or "").endswith("partial")
    if is_partial and isinstance(target, ast.Call) and target.args:
        target = target.args[0]
    name = dotted(target) or ""
    owner, _, last = name.rpartition(".")
    if owner in ("self", "cls"):
        for node in facts.module.of_kind(ast.ClassDef):
            if holds(node, call) and any(getattr(item, "name", "") == last for item in node.body):
                return Started(facts.name, call.lineno, facts.name, f"{node.name}.{last}")
    elif isinstance(facts.module.defines(name), Function):
        return Started(facts.name, call.lineno, facts.name, name)
    elif (found := facts.workspace.definition(facts.name, name)) is not None:
        return Started(facts.name, call.lineno, found[0].name, found[1])
    return Started(facts.name, call.lineno)


def _applications(facts: FileFacts, call: ast.Call) -> Iterator[Started]:
    """The application that `uvicorn.run("server:app", workers=2)` has its workers import. What is
    no text is the application itself, which uvicorn serves in this process alone."""
    given = {item.arg: item.value for item in call.keywords}
    named = call.args[0] if call.args else given.get("app")
    in_children = _is_set(given.get("workers"), but=1) or _is_set(given.get("reload"))
    if not (dotted(call.func) or "").startswith("uvicorn.") or not in_children or named is None:
        return
    for value in _values(facts, named):
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield _application(facts, call, value.value)
        elif isinstance(value, ast.JoinedStr | ast.BinOp | ast.Name | ast.Attribute):
            yield Started(facts.name, call.lineno)


def _values(facts: FileFacts, node: ast.expr) -> list[ast.expr]:
    """What an expression may stand for: of a name, all that the file gives it, or the file that it
    is imported from; nothing of one that stands for a definition or a whole module."""
    name = dotted(node)
    if name is None:
        return [node]
    home, defined = facts.workspace.definition(facts.name, name) or (facts, name)
    found = [value for bound, value in home.module.all_assignments if bound == defined]
    is_known = home is not facts or facts.module.imported(name) or facts.module.defines(name)
    return found if found or is_known else [node]


def _application(facts: FileFacts, call: ast.Call, text: str) -> Started:
    """The application `module:name`."""
    workspace, path = facts.workspace, facts.name
    module, _, name = text.partition(":")
    home = workspace.names.application_home(path, module, name)
    if path in workspace.project.resolve(Import(0, module), path, or_itself=True):
        home = path
    return Started(path, call.lineno, home, name if _is_function(workspace, home, name) else "")


def _is_set(value: ast.expr | None, but: int = 0) -> bool:
    """Whether an argument may say yes, or a number other than `but`."""
    if not isinstance(value, ast.Constant):
        return value is not None
    return value.value is True or value.value not in (but, False, None)


def _is_function(workspace: Workspace, home: PurePosixPath | None, name: str) -> bool:
    return home is not None and isinstance(workspace.module(home).defines(name), Function)
