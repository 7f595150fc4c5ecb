"""The functions that click and typer run as commands, and what keeps one from taking two more options."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flash_integrate.snippets import BLOCK_SIZE_FLAG, BLOCK_SIZE_TYPE, DISABLE_FLAG, FLAG_NAMES
from flash_integrate.syntax import Function, Statement, dotted, walk

if TYPE_CHECKING:
    from flash_integrate.facts.file_facts import FileFacts

_CLICK = {"click", "rich_click", "asyncclick"}
_GROUPS = {"group", "callback"}
_COMMANDS = {"command", *_GROUPS}
_OPTIONS = {"option", "argument", "password_option", "confirmation_option", "version_option", "help_option"}


@dataclass(frozen=True)
class Command:
    """A function that runs as a command (or group) of `library`: `click` or `typer`."""

    statement: Statement
    node: Function
    library: str
    is_group: bool


def find_commands(facts: FileFacts) -> list[Command]:
    """The module's functions that are decorated as commands, or handed to `typer.run`."""
    if not facts.imported_packages & {*_CLICK, "typer"}:
        return []
    run = {dotted(function) for function in _handed_to_typer(facts)}
    found = []
    for statement in facts.module_level:
        node = statement.node
        if not isinstance(node, Function):
            continue
        roles = {name.rpartition(".")[2] for name in _decorators(node)} & _COMMANDS
        if roles or node.name in run:
            found.append(Command(statement, node, _library(facts, node), bool(roles & _GROUPS)))
    return found


def runs_the_model(facts: FileFacts, commands: list[Command]) -> list[Command]:
    """The commands that run attention: a group that does so does it for its commands. A single command is taken to,
    if the file does; of several that hide it the groups, or all."""
    running = [item for item in commands if facts.workspace.reach.of_definition(facts.name, item.node)]
    candidates = running or commands
    return [item for item in candidates if item.is_group] or candidates


def name_in(facts: FileFacts, packages: set[str], name: str) -> str | None:
    """How the file can write `name` of one of the packages: `click.option`, or `option` where it is imported so."""
    for node in facts.source.nodes:
        if isinstance(node, ast.ImportFrom) and node.module in packages:
            bound = next((alias.asname or alias.name for alias in node.names if alias.name == name), None)
            if bound is not None:
                return bound
    for node in facts.source.nodes:
        for alias in node.names if isinstance(node, ast.Import) else []:
            if alias.name in packages:
                return f"{alias.asname or alias.name}.{name}"
    return None


def click_option(facts: FileFacts) -> str | None:
    return name_in(facts, _CLICK, "option")


def refusal_of_options(facts: FileFacts, command: Command) -> str | None:
    """Why a command can't be given the two options and the call."""
    if facts.first_line_of(command.statement) is None:
        return "the command's body shares its line with the def"
    node = command.node
    name = node.name
    if BLOCK_SIZE_TYPE.encode() in facts.source.data:
        return f"the file has a {BLOCK_SIZE_TYPE} of its own"
    constants = {item.value for item in walk(node) if isinstance(item, ast.Constant)}
    names = {item.arg for item in walk(node.args) if isinstance(item, ast.arg)}
    if constants & {DISABLE_FLAG, BLOCK_SIZE_FLAG} or names & set(FLAG_NAMES):
        return f"{name} has such an option already"
    whole = {item.attr for item in walk(node) if isinstance(item, ast.Attribute)} & {"params", "forward"}
    if whole or any(_calls(node, {"locals"})):
        return f"{name} uses its arguments as a whole, where the two would turn up"
    return None


def is_used_as_function(facts: FileFacts, command: Command) -> bool:
    """Whether the command's function is used by its name beyond `typer.run`, here or in another file."""
    name = command.node.name
    handed = {id(function) for function in _handed_to_typer(facts)}
    reads = (node for node in facts.source.nodes if isinstance(node, ast.Name) and node.id == name)
    is_read = any(id(node) not in handed for node in reads)
    return is_read or facts.workspace.project.is_imported_by_name(facts.name, name)


def _handed_to_typer(facts: FileFacts) -> Iterator[ast.expr]:
    """What `typer.run` is called with."""
    calls = _calls(facts.tree, {name_in(facts, {"typer"}, "run")})
    return (call.args[0] for call in calls if call.args)


def _library(facts: FileFacts, node: Function) -> str:
    """The library of a file that imports one alone; else told by the decorators."""
    packages = facts.imported_packages
    if "typer" not in packages:
        return "click"
    own = {name_in(facts, _CLICK, role) for role in _COMMANDS | _OPTIONS} - {None}
    return "click" if own & set(_decorators(node)) else "typer"


def _decorators(node: Function) -> Iterator[str]:
    for item in node.decorator_list:
        yield dotted(item.func if isinstance(item, ast.Call) else item) or ""


def _calls(root: ast.AST, names: set[str | None]) -> Iterator[ast.Call]:
    return (node for node in walk(root) if isinstance(node, ast.Call) and dotted(node.func) in names - {None})
