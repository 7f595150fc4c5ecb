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
from flash_integrate.planning.codemod import Codemod, name_of
from flash_integrate.planning.installed import installed_names
from flash_integrate.planning.plan import is_integrated
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.syntax import Function, dotted, walk
from flash_integrate.quoting import quoted

_WITH_FLAGS: Sequence[Codemod] = (argparse_script, click_command, typer_command)
_CONSOLE_SCRIPT = "console-script"
"""By its name, as it asks this module."""


def handed_over(facts: FileFacts, body: Sequence[ast.stmt]) -> Refusal | None:
    """Why statements get no call: they run a function of a file that turns the runtime on in it,
    and no attention besides. Functions of this file that they call are looked into."""
    handed: Refusal | None = None
    for name in _called(facts, body):
        found = facts.workspace.definition(facts.name, name)
        codemod = _turned_on_by(*found) if found is not None else None
        if found is not None and codemod is not None:
            handed = handed or _handed_to(found[0], codemod, body[0].lineno)
        elif runs_attention(facts, name) or (found is not None and leads_to_attention(*found)):
            return None
    return handed


def _handed_to(target: FileFacts, codemod: str, line: int) -> Refusal:
    """As `handed_over`: to a file that has the call, or in which a codemod would put it."""
    starts = f"only starts {quoted(target.name)}"
    workspace = target.workspace
    if codemod and not workspace.wants(codemod):
        return Refusal(f"{starts}, where the call belongs, and {codemod} is left out", line)
    if codemod and target.name not in workspace.editable:
        return Refusal(f"{starts}, where the call belongs, and this run does not change it", line)
    return HandedOver(f"{starts}, which turns the runtime on", line)


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


def _turned_on_by(facts: FileFacts, name: str) -> str | None:
    """The codemod that gives a file flags for the runtime, or has it turned on in whoever imports
    it or in its function `name`; nothing for one that an earlier run has changed, None where there
    is none."""
    by_call: str | None = _CONSOLE_SCRIPT if name in installed_names(facts) else None
    if application.match(facts) is not None:
        by_call = name_of(application)
    if integrated_at(facts.module) is not None:
        parses = facts.get(Namespaces).parsers
        return "" if by_call or parses or facts.get(find_commands) else None
    if not is_integrated(facts):
        return None
    if by_call and leads_to_attention(facts, name):
        return by_call
    matches = ((name_of(codemod), codemod.match(facts)) for codemod in _WITH_FLAGS)
    fitting = (
        codemod
        for codemod, match in matches
        if match is not None and not isinstance(match, Refusal)
    )
    return next(fitting, None)
