"""The functions that click and typer run as commands, and what keeps one from taking two more
options."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from flash_codemods.commands.decorators import (
    CLICK,
    GROUPS,
    command_role,
    imports_library,
    in_library,
    unknown_decorator,
)
from flash_integrate.attention.reach import AttentionReach
from flash_integrate.inserted.snippets import (
    BLOCK_SIZE_FLAG,
    DISABLE_FLAG,
    FLAG_NAMES,
)
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.syntax import Function, Statement, dotted, walk


@dataclass(frozen=True)
class Command:
    """A function that runs as a command (or group) of `library`: `click` or `typer`. `head` is the
    index of the decorator that makes it one; None for a function that is handed to `typer.run`."""

    statement: Statement
    node: Function
    library: str
    is_group: bool
    head: int | None


def find_commands(facts: FileFacts) -> list[Command]:
    """The module's functions that are decorated as commands, or handed to `typer.run`."""
    if not imports_library(facts):
        return []
    run = {dotted(function) for function in _handed_to_typer(facts)}
    found = []
    for statement in facts.module_level:
        node = statement.node
        if not isinstance(node, Function):
            continue
        roles = [command_role(facts, decorator) for decorator in node.decorator_list]
        made = [(role, index) for index, role in enumerate(roles) if role is not None]
        if made:
            is_group = any(kind in GROUPS for (_, kind), _ in made)
            (library, _), last = made[-1]
            found.append(Command(statement, node, library, is_group, last))
        elif node.name in run:
            found.append(Command(statement, node, "typer", is_group=False, head=None))
    return found


def commands_to_edit(facts: FileFacts, library: str | None = None) -> list[Command]:
    """The commands that run attention: a group that does so does it for its commands. A single
    command is taken to, if the file does; of several that hide it the groups, or all. None where
    one of them is not of the `library` that is asked for."""
    commands = facts.get(find_commands)
    running = [
        item
        for item in commands
        if facts.workspace.get(AttentionReach).comes_to_attention(facts.name, item.node)
    ]
    candidates = running or commands
    found = [item for item in candidates if item.is_group] or candidates
    is_one_library = library is None or all(item.library == library for item in found)
    return found if is_one_library else []


def name_in(facts: FileFacts, packages: set[str], name: str) -> str | None:
    """How the file can write `name` of one of the packages: `click.option`, or `option` where it
    is imported so. An import in a function or under a condition may not have run."""
    always = [item for item in facts.module.imports if item.always and not item.dots]
    for item in always:
        if item.module in packages and item.name == name:
            return item.bound
    for item in always:
        if item.module in packages and item.name is None:
            return f"{item.bound}.{name}"
    return None


def click_option(facts: FileFacts) -> str | None:
    return name_in(facts, CLICK, "option")


def refusal_of_options(facts: FileFacts, command: Command) -> str | None:
    """Why a command can't be given the two options and the call."""
    if facts.first_line_of(command.statement) is None:
        return "the command's body shares its line with the def"
    node = command.node
    name = node.name
    constants = {item.value for item in walk(node) if isinstance(item, ast.Constant)}
    names = {item.arg for item in walk(node.args) if isinstance(item, ast.arg)}
    if constants & {DISABLE_FLAG, BLOCK_SIZE_FLAG} or names & set(FLAG_NAMES):
        return f"{name} has such an option already"
    if (
        unknown := unknown_decorator(facts, node.decorator_list[(command.head or 0) :])
    ) is not None:
        return f"{name} is decorated with {unknown}, which may not hand on other arguments"
    whole = {item.attr for item in walk(node) if isinstance(item, ast.Attribute)} & {
        "params",
        "forward",
    }
    if whole or any(
        isinstance(item, ast.Call) and dotted(item.func) == "locals" for item in walk(node)
    ):
        return f"{name} uses its arguments as a whole, where the two would turn up"
    return None


def used_as_functions(facts: FileFacts, commands: list[Command]) -> list[Command]:
    """The commands whose function is used by its name beyond `typer.run`, here or in another
    file."""
    handed = {id(function) for function in _handed_to_typer(facts)}
    read = {node.id for node in facts.module.of_kind(ast.Name) if id(node) not in handed}
    importers = partial(facts.workspace.project.importers_of, facts.name)
    return [item for item in commands if item.node.name in read or any(importers(item.node.name))]


def _handed_to_typer(facts: FileFacts) -> Iterator[ast.expr]:
    """What `typer.run` is called with."""
    calls = (node for node in facts.module.of_kind(ast.Call) if node.args)
    return (
        call.args[0] for call in calls if in_library(facts, dotted(call.func)) == ("typer", "run")
    )
