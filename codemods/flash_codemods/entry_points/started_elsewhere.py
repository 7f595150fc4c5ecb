"""Files that do nothing but start others, which turn the runtime on themselves."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator, Sequence

from flash_codemods.argparse import argparse_script
from flash_codemods.argparse.namespaces import Namespaces
from flash_codemods.commands import click_command, typer_command
from flash_codemods.commands.functions import find_commands
from flash_codemods.entry_points import application
from flash_integrate.attention.signs import (
    has_attention,
    leads_to_attention,
    runs_attention,
)
from flash_integrate.inserted.presence import integrated_at
from flash_integrate.notes import HandedOver, Refusal
from flash_integrate.planning.codemod import Codemod
from flash_integrate.planning.installed import installed_names
from flash_integrate.planning.plan import is_integrated
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.syntax import Function, dotted, walk
from flash_integrate.quoting import quoted

_WITH_FLAGS: Sequence[Codemod] = (argparse_script, click_command, typer_command)


def handed_over(facts: FileFacts, body: Sequence[ast.stmt]) -> HandedOver | None:
    """Why statements need no call: they run a function of a file that turns the runtime on in it,
    and no attention besides. Functions of this file that they call are looked into."""
    target: FileFacts | None = None
    for name in _called(facts, body):
        found = facts.workspace.definition(facts.name, name)
        if found is not None and _turns_it_on(*found):
            target = target or found[0]
        elif runs_attention(facts, name) or (found is not None and leads_to_attention(*found)):
            return None
    if target is None:
        return None
    reason = f"only starts {quoted(target.name)}, which turns the runtime on"
    return HandedOver(reason, body[0].lineno)


def _called(facts: FileFacts, body: Sequence[ast.stmt]) -> Iterator[str]:
    """The names of what statements call, in place of a function of this file what that calls. One
    that has attention in it is named itself."""
    todo = deque(_names_of_calls(body))
    seen: set[str] = set()
    while todo:
        name = todo.popleft()
        if name in seen:
            continue
        seen.add(name)
        function = facts.module.defines(name)
        if isinstance(function, Function) and not has_attention(facts, function):
            todo.extendleft(reversed(_names_of_calls(function.body)))
        else:
            yield name


def _names_of_calls(body: Sequence[ast.stmt]) -> list[str]:
    statements = [node for node in body if not isinstance(node, Function | ast.ClassDef)]
    parts = [part for statement in statements for part in walk(statement)]
    names = [dotted(part.func) for part in parts if isinstance(part, ast.Call)]
    return [name for name in names if name is not None]


def _turns_it_on(facts: FileFacts, name: str) -> bool:
    """Whether a file has flags for the runtime, or turns it on in whoever imports it or in its
    function `name`, from this run or an earlier one."""
    has_call = application.match(facts) is not None or name in installed_names(facts)
    if integrated_at(facts.module) is not None:
        parses = facts.get(Namespaces).parsers
        return bool(has_call or parses or facts.get(find_commands))
    if not is_integrated(facts):
        return False
    if has_call and leads_to_attention(facts, name):
        return True
    matches = (codemod.match(facts) for codemod in _WITH_FLAGS)
    return any(match is not None and not isinstance(match, Refusal) for match in matches)
