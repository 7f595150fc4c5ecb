"""How a module starts work: its `__main__` guard, what it does at module level, and so where its
imports end."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from functools import cached_property
from itertools import takewhile

from flash_integrate.attention.signs import imports_models, model_functions, runs_attention
from flash_integrate.project.kinds import is_test
from flash_integrate.project.scan import imported_by
from flash_integrate.project.workspace import FileFacts, InsertionPoint
from flash_integrate.python.syntax import (
    Function,
    Statement,
    dotted,
    guarded_suite,
    is_docstring,
    is_main_guard,
    own_nodes,
    walk,
)

# Module-level calls that prepare a process rather than do a program's work.
_SETUP_CALLS = re.compile(
    r"(importlib|sys\.path|sys\.stdout|sys\.setrecursionlimit|os\.environ|os\.putenv|os\.chdir"
    r"|logging|warnings|load_dotenv|dotenv|locale|signal|random\.seed|np\.random|numpy\.random"
    r"|mx\.random|mx\.set_\w+|mx\.metal|multiprocessing|mp|nest_asyncio|transformers\.logging"
    r"|matplotlib|plt\.style|sns|pd\.set_option|torch)(\.|$)"
)


class Starts:
    """The ways in which one file starts work when it is run."""

    def __init__(self, facts: FileFacts) -> None:
        self._facts = facts
        self._top = facts.module.top

    @cached_property
    def guard(self) -> Statement | None:
        """The `if __name__ == "__main__":` of the module that starts something; of several the
        first that a line can be inserted into."""
        guards = [item for item in _main_guards(self._facts) if _starts_something(item.node)]
        can_take_lines = [guard for guard in guards if self._facts.first_line_of(guard) is not None]
        return next(iter(can_take_lines or guards), None)

    @property
    def guard_body(self) -> list[ast.stmt]:
        """The statements that run only where the module is started as a program."""
        suite = guarded_suite(self.guard.node) if self.guard is not None else None
        body: list[ast.stmt] = getattr(self.guard.node, suite) if self.guard and suite else []
        return body

    @cached_property
    def first_work(self) -> Statement | None:
        """The first module-level statement that does a program's work."""
        works = (item for item in self._top if self._does_work(item.node))
        return next(works, None)

    @property
    def tries_out_library(self) -> bool:
        """Whether the guard is in a module of a package which other files import, and starts no
        function of it: then it shows what the module does, and the program is another."""
        project = self._facts.workspace.project
        importers = (
            user for user in project.importers.get(self._facts.name, ()) if not is_test(user)
        )
        in_package = self._facts.name.with_name("__init__.py") in project.scans
        if not in_package or self._facts.name.stem == "__main__" or not any(importers):
            return False
        functions = {item.node.name for item in self._top if isinstance(item.node, Function)}
        statements = (
            node for node in self.guard_body if isinstance(node, ast.Expr | ast.Assign | ast.Raise)
        )
        calls = (
            node
            for statement in statements
            for node in walk(statement)
            if isinstance(node, ast.Call)
        )
        started = {name for call in calls if (name := dotted(call.func)) in functions}
        return all(name.lstrip("_").startswith("test") for name in started)

    @cached_property
    def import_anchor(self) -> Statement | None:
        """The statement below which a call at module level goes; None: before everything.

        That is the last import above the first definition, guard or work, or the first import of
        MLX where that comes later; else the docstring.
        """
        return self.last_import(self._top)

    def last_import(self, statements: list[Statement]) -> Statement | None:
        """As `import_anchor`, among some of the statements at module level."""
        last = None
        mlx = self._first_mlx_import
        for statement in statements:
            node = statement.node
            is_past = mlx is None or statement.index > mlx.index
            if is_past and isinstance(node, Function | ast.ClassDef):
                break
            if is_past and (self._does_work(node) or _holds_guard(node)):
                break
            imports = isinstance(node, ast.Import | ast.ImportFrom) or statement is mlx
            header = imports or (statement.index == 0 and is_docstring(node))
            if header and statement.ends_its_line:
                last = statement
        return last

    def below_mlx_import(self, point: InsertionPoint) -> InsertionPoint:
        """The point or, where the file's first import of MLX stands further below in the same
        suite, the one below that import: the runtime's import loads MLX, for which the statements
        above the file's own may prepare. Above a statement that goes on to work with it."""
        *header, (suite, index) = point.anchor
        first = index if point.before else index + 1
        mlx = self._first_mlx_import
        if mlx is not None and (header or mlx.index < first):
            return point
        last: Statement | None = None
        for item in self._facts.suites[tuple(header), suite][first:]:
            imports = self._imports_mlx(item.node)
            if imports and last is None and not _only_imports(item.node) and item.starts_its_line:
                return InsertionPoint.beside(item, before=True)
            is_import = isinstance(item.node, ast.Import | ast.ImportFrom)
            goes_on = imports or (last is not None and is_import)
            if goes_on and _only_imports(item.node) and item.ends_its_line:
                last = item
            elif last is not None:
                break
        if last is None:
            return point
        is_import = isinstance(last.node, ast.Import | ast.ImportFrom)
        return InsertionPoint.beside(last, before=False, is_apart=is_import)

    def in_started_function(self) -> InsertionPoint | None:
        """Where the guard only starts a function which prepares for the file's first import of MLX
        and then makes it: the point below it. None where the function is used elsewhere too."""
        if self._first_mlx_import is not None or len(self.guard_body) != 1:
            return None
        parts = walk(self.guard_body[0])
        functions = [self._facts.module.defines(dotted(part)) for part in parts]
        started = [node for node in functions if isinstance(node, Function)]
        if len(started) != 1 or self._is_used_elsewhere(started[0].name):
            return None
        above = takewhile(lambda node: not self._imports_mlx(node), started[0].body)
        top = self._facts.first_line_of(self._facts.module.statement(started[0]))
        imports = (ast.Import, ast.ImportFrom)
        if top is None or all(is_docstring(node) or isinstance(node, imports) for node in above):
            return None
        below = self.below_mlx_import(top)
        return None if below == top else below

    def _is_used_elsewhere(self, function: str) -> bool:
        """Whether anything beside the guard uses a function of the module."""
        read = [node for node in self._facts.module.of_kind(ast.Name) if node.id == function]
        importers = self._facts.workspace.project.importers_of(self._facts.name, function)
        return len(read) > 1 or any(importers)

    @cached_property
    def _first_mlx_import(self) -> Statement | None:
        """The first statement at module level that imports MLX."""
        return next((item for item in self._top if self._imports_mlx(item.node)), None)

    def _imports_mlx(self, node: ast.stmt) -> bool:
        """Whether a statement imports MLX when it runs, itself or through packages and files that
        do."""
        is_type_check = isinstance(node, ast.If) and (dotted(node.test) or "").endswith(
            "TYPE_CHECKING"
        )
        if isinstance(node, Function | ast.ClassDef) or is_type_check or _holds_guard(node):
            return False
        found = [item for part in walk(node) for item in imported_by(part)]
        project = self._facts.workspace.project
        if any(not item.dots and item.module.partition(".")[0] == "mlx" for item in found):
            return True
        if any(imports_models(project, self._facts.name, item) for item in found):
            return True
        files = (path for item in found for path in project.resolve(item, self._facts.name))
        return any(project.loads_mlx(path) for path in files)

    def _does_work(self, node: ast.stmt) -> bool:
        """Whether a module-level statement does a program's work: a call for its effect, a loop, a
        `with`, or whatever else starts a function of the project."""
        if isinstance(node, ast.For | ast.While | ast.With) or self._starts_function(node):
            return True
        value = (
            getattr(node, "value", None)
            if isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign)
            else None
        )
        call = value.value if isinstance(value, ast.Await) else value
        if not isinstance(call, ast.Call):
            return False
        if isinstance(node, ast.Expr):
            return not _prepares(node)
        return dotted(call.func) in self._facts.get(model_functions)

    def _starts_function(self, node: ast.stmt) -> bool:
        """Whether a statement, or one in its suites, calls a function of the project for what it
        does."""
        is_guard = self.guard is not None and is_main_guard(node)
        if is_guard or isinstance(node, Function | ast.ClassDef) or _prepares(node):
            return False
        if any(self._starts_function(inner) for inner in _inner(node)):
            return True
        names = [
            name
            for part in own_nodes(node)
            if isinstance(part, ast.Call) and (name := dotted(part.func))
        ]
        if isinstance(node, ast.Expr | ast.Raise):
            return any(
                self._facts.module.defines(name)
                or self._facts.workspace.names.home(self._facts.name, name)
                for name in names
            )
        # `code = main()`, where `config = defaults()` prepares.
        return isinstance(node, ast.Assign) and any(
            runs_attention(self._facts, name) for name in names
        )


def _main_guards(facts: FileFacts) -> list[Statement]:
    """The `if __name__ == "__main__":` of a module, also in a `try`. One with a further condition
    counts where it is alone: of several each may be another way to start."""
    tries = [isinstance(node, ast.Try) for node in facts.tree.body]
    at_top = [item for item in facts.statements if len(item.steps) == 1 or _is_in_try(item, tries)]
    guards = [item for item in at_top if is_main_guard(item.node)]
    plain = [
        item
        for item in guards
        if isinstance(item.node, ast.If) and isinstance(item.node.test, ast.Compare)
    ]
    return plain or (guards if len(guards) == 1 else [])


def _only_imports(node: ast.stmt) -> bool:
    """Whether a statement does nothing but import, also where that may fail."""
    if isinstance(node, ast.Try | ast.If | ast.With):
        return all(map(_only_imports, node.body))
    is_plain = isinstance(node, ast.Assign) and not any(
        isinstance(part, ast.Call) for part in walk(node)
    )
    return is_plain or isinstance(node, ast.Import | ast.ImportFrom)


def _starts_something(guard: ast.stmt) -> bool:
    """Whether a guard reads a name that is not Python's own: one with `pass`, or that prints a
    text, starts nothing."""
    suite = guarded_suite(guard)
    body: list[ast.stmt] = getattr(guard, suite) if suite else []
    names = [part.id for node in body for part in walk(node) if isinstance(part, ast.Name)]
    imports = any(isinstance(part, ast.Import | ast.ImportFrom) for part in body)
    return imports or any(not hasattr(builtins, name) for name in names)


def _is_in_try(statement: Statement, tries: list[bool]) -> bool:
    steps = statement.steps
    return len(steps) == 2 and steps[1][0] == "body" and tries[steps[0][1]]


def _holds_guard(node: ast.stmt) -> bool:
    """Whether a module-level statement is a guard, or has one in it."""
    return any(is_main_guard(part) for part in walk(node) if isinstance(part, ast.If))


def _inner(node: ast.stmt) -> Iterator[ast.stmt]:
    for name in ("body", "orelse", "finalbody"):
        yield from getattr(node, name, [])
    for handler in getattr(node, "handlers", []):
        yield from handler.body


def _prepares(node: ast.stmt) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and _SETUP_CALLS.match(dotted(call.func) or "") is not None
