"""What one file is and holds, read from its syntax tree: everything that `plan` decides from."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from flash_codemods.argparse.namespaces import ArgparseFacts, read_argparse
from flash_codemods.argparse.options import assignments
from flash_codemods.argparse.parsers import Parser
from flash_codemods.commands.decorators import command_imports
from flash_codemods.commands.functions import Command, find_commands
from flash_integrate.attention.handwritten import handwritten_attention
from flash_integrate.attention.module_work import does_work, guard_body, holds_guard, main_guards
from flash_integrate.attention.reach import holds_models
from flash_integrate.inserted.snippets import ENABLE, RUNTIME, Style
from flash_integrate.project.kinds import is_test
from flash_integrate.python.source import Source
from flash_integrate.python.syntax import (
    Function,
    Place,
    Statement,
    dotted,
    guarded_suite,
    is_docstring,
    statements,
    walk,
)

if TYPE_CHECKING:
    from flash_integrate.project.workspace import Workspace

# The fields in which nodes hold the names that they read or bind: names, definitions, parameters,
# imports.
_NAMING = ("id", "name", "arg", "asname")
FAST_ATTENTION = "fast.scaled_dot_product_attention"
# What scripts call to run a model, as a word of the function's name.
_RUNS = re.compile(r"(^|_)(generate|train|evaluate|chat|transcribe|stream)(_|$)")
_ADDS_OPTION = {"add_argument", "option", "argument", "Option", "Argument"}
# What those words do not run: `generate_readme`, `apply_chat_template`.
_WRITES = re.compile(r"(^|_)(readme|card|config|content|template|index|report)(_|$)")


@dataclass(frozen=True)
class Spot:
    """A place for new lines: before or after a statement."""

    anchor: Place
    before: bool


@dataclass(frozen=True)
class FileFacts:
    """A file of a workspace, `name` being its path as shown."""

    name: PurePosixPath
    source: Source
    workspace: Workspace = field(repr=False)

    @property
    def tree(self) -> ast.Module:
        return self.source.tree

    @cached_property
    def statements(self) -> list[Statement]:
        return statements(self.tree, self.source.text)

    @cached_property
    def reached(self) -> str | None:
        """How the file comes to attention, in words; None if it does not."""
        return self.workspace.reach.of_script(self.name, self.source)

    @property
    def is_imported(self) -> bool:
        return self.name in self.workspace.project.importers

    @cached_property
    def argparse(self) -> ArgparseFacts:
        if not self.workspace.project.may_parse_arguments(self.name):
            return ArgparseFacts()
        self.workspace.being_read.add(self.name)
        try:
            # Not a method: that would hold this file.
            lookup = partial(self.workspace.argparse_definition, self.name)
            return read_argparse(self.name, self.tree, self.statements, lookup)
        finally:
            self.workspace.being_read.discard(self.name)

    @property
    def holds_parsers(self) -> bool:
        """Whether the file is known to build parsers, or to hand on what they parsed: others tell
        those by identity."""
        found = self.__dict__.get("argparse")
        return found is not None and bool(found.parsers or found.factories or found.returned)

    @cached_property
    def shared_parsers(self) -> list[Parser]:
        """The parsers of this file that other files parse their arguments with."""
        return [parser for parser in self.argparse.parsers if self.workspace.users(parser)]

    @cached_property
    def console_functions(self) -> list[Statement]:
        """The functions that the project's packaging installs as commands."""
        names = self.workspace.console_scripts.get(self.name, set())
        return [
            item
            for item in self.module_level
            if isinstance(item.node, Function) and item.node.name in names
        ]

    @cached_property
    def commands(self) -> list[Command]:
        """The functions of the module that click or typer run."""
        return find_commands(self)

    @cached_property
    def module_level(self) -> list[Statement]:
        return [statement for statement in self.statements if len(statement.place) == 1]

    @cached_property
    def guard(self) -> Statement | None:
        """The `if __name__ == "__main__":` of the module; of several the first that a line can be
        inserted into."""
        guards = main_guards(self)
        can_take_lines = [guard for guard in guards if self.first_line_of(guard) is not None]
        return next(iter(can_take_lines or guards), None)

    @property
    def guard_body(self) -> list[ast.stmt]:
        return guard_body(self.guard)

    @property
    def guard_tries_out_library(self) -> bool:
        """Whether the guard is in a module of a package which other files import, and starts no
        function of it: then it shows what the module does, and the program is another."""
        project = self.workspace.project
        importers = (user for user in project.importers.get(self.name, ()) if not is_test(user))
        in_package = self.name.with_name("__init__.py") in project.scans
        if not in_package or self.name.stem == "__main__" or not any(importers):
            return False
        functions = {
            item.node.name for item in self.module_level if isinstance(item.node, Function)
        }
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
    def _suites(self) -> dict[tuple[Place, str], list[Statement]]:
        """The statements of each suite, by the place of its header and the suite's field."""
        found: dict[tuple[Place, str], list[Statement]] = {}
        for item in self.statements:
            *header, (suite, _) = item.place
            found.setdefault((tuple(header), suite), []).append(item)
        return found

    def first_line_of(self, header: Statement) -> Spot | None:
        """The spot below a header and its docstring, if there is one; None where no line can go
        there."""
        suite = guarded_suite(header.node) or "body"
        inner = self._suites[header.place, suite]
        first = inner[0]
        if not is_docstring(first.node) or not isinstance(header.node, Function):
            return Spot(first.place, before=True) if first.starts_its_line else None
        if len(inner) > 1:
            return Spot(inner[1].place, before=True) if inner[1].starts_its_line else None
        return (
            Spot(first.place, before=False)
            if first.starts_its_line and first.ends_its_line
            else None
        )

    @cached_property
    def first_work(self) -> Statement | None:
        """The first module-level statement that does a program's work."""
        return next(
            (statement for statement in self.module_level if does_work(self, statement.node)), None
        )

    def defines(self, name: str) -> ast.stmt | None:
        """The function or class of the module that has this name."""
        named = self.bound.get(name, [])
        return next((node for node in named if isinstance(node, Function | ast.ClassDef)), None)

    @cached_property
    def bound(self) -> dict[str, list[ast.stmt]]:
        """The statements at module level that define or assign a dotted name, in their order."""
        found: dict[str, list[ast.stmt]] = {}
        for node in self.tree.body:
            if isinstance(node, Function | ast.ClassDef):
                names = [node.name]
            else:
                names = [name for name, _ in assignments(node)]
            for name in names:
                found.setdefault(name, []).append(node)
        return found

    def runs_attention(self, name: str) -> bool:
        """Whether a call of `name` runs attention: of a function or class of the module, or one
        that holds a model."""
        node = self.defines(name)
        reaches = (
            node is not None and self.workspace.reach.of_definition(self.name, node) is not None
        )
        return reaches or name in self.model_functions

    @cached_property
    def names_imported(self) -> set[str]:
        """The names that imports bind in the module in any case: not in a function, nor under a
        condition."""
        imports = (node for node in self.tree.body if isinstance(node, ast.Import | ast.ImportFrom))
        return {alias.asname or alias.name for node in imports for alias in node.names}

    @cached_property
    def command_imports(self) -> list[tuple[str, str, str]]:
        """What the file imports of click and typer, wherever the import stands."""
        return list(command_imports(self.source.nodes))

    @cached_property
    def model_functions(self) -> set[str]:
        """The names under which the module imports functions (not classes) of packages that hold
        models."""
        names: set[str] = set()
        for node in self.source.nodes:
            if (
                isinstance(node, ast.ImportFrom)
                and node.level == 0
                and holds_models(node.module or "")
            ):
                names.update(
                    alias.asname or alias.name for alias in node.names if alias.name.islower()
                )
        return names

    @cached_property
    def integrated_at(self) -> int | None:
        """The line that imports the runtime, if there is one."""
        for statement in self.statements:
            node = statement.node
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any((module or "").partition(".")[0] == RUNTIME for module in modules):
                return statement.line
        return None

    @cached_property
    def replaces_attention_at(self) -> int | None:
        """The line on which the file sets `mx.fast.scaled_dot_product_attention` itself."""
        for statement in self.statements:
            node = statement.node
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any((dotted(target) or "").endswith(FAST_ATTENTION) for target in targets):
                return statement.line
        return None

    @cached_property
    def runs_models(self) -> bool:
        """Whether the file calls something that generates, trains or evaluates, by the name of
        what it calls."""
        calls = (
            dotted(node.func) or "" for node in self.source.nodes if isinstance(node, ast.Call)
        )
        names = {call.rpartition(".")[2] for call in calls}
        return any(_RUNS.search(name) and not _WRITES.search(name) for name in names)

    @cached_property
    def handwritten_attention(self) -> list[int]:
        """The lines of functions that compute `softmax(q @ k.T) @ v` from its parts: no patch can
        reach those."""
        return sorted(set(handwritten_attention(self.source.tree)))

    @cached_property
    def uses_name(self) -> bool:
        """Whether the file already uses the name of the patch call for something."""
        if ENABLE.encode() not in self.source.data:
            return False
        methods = {
            id(item)
            for node in self.source.nodes
            if isinstance(node, ast.ClassDef)
            for item in node.body
        }
        nodes = (
            node
            for node in self.source.nodes
            if not isinstance(node, ast.keyword) and id(node) not in methods
        )
        return any(ENABLE in (getattr(node, kind, None) for kind in _NAMING) for node in nodes)

    @cached_property
    def style(self) -> Style:
        """The quotes of the arguments' strings, and the width of the widest line that adds one."""
        lines = re.split(r"\r\n|\r|\n", self.source.text)
        width, quotes = 88, Counter[str]()
        for call in self.source.nodes:
            if (
                isinstance(call, ast.Call)
                and (dotted(call.func) or "").rpartition(".")[2] in _ADDS_OPTION
            ):
                if call.lineno == call.end_lineno:
                    width = max(width, len(lines[call.lineno - 1]))
                strings = [
                    node
                    for node in walk(call)
                    if isinstance(node, ast.Constant) and _is_string(node)
                ]
                quotes.update(_source_character(lines, node) for node in strings)
        return Style("'" if quotes["'"] > quotes['"'] else '"', width)

    @cached_property
    def import_anchor(self) -> int | None:
        """The index in the module's body after which the runtime's import goes; None: before
        everything.

        That is the last import above the first definition, guard or work; else the docstring.
        """
        anchor = None
        for index, statement in enumerate(self.module_level):
            node = statement.node
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                break
            if does_work(self, node) or holds_guard(node):
                break
            header = isinstance(node, ast.Import | ast.ImportFrom) or (
                index == 0 and is_docstring(node)
            )
            if header and statement.ends_its_line:
                anchor = index
        return anchor


def _is_string(node: ast.Constant) -> bool:
    return isinstance(node.value, str)


def _source_character(lines: list[str], node: ast.expr) -> str:
    """The character at which an expression starts; `col_offset` counts UTF-8 bytes."""
    return (
        lines[node.lineno - 1]
        .encode()[node.col_offset : node.col_offset + 1]
        .decode(errors="replace")
    )
