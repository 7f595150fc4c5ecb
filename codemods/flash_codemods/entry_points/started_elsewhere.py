"""Files that do nothing but start others, or are started by others, which turn the runtime on
themselves."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from flash_codemods.argparse import argparse_script
from flash_codemods.commands import click_command, typer_command
from flash_integrate.planning.codemod import Codemod, Refusal
from flash_integrate.planning.plan import left_alone
from flash_integrate.project.file_facts import FileFacts
from flash_integrate.python.syntax import Function, dotted, walk
from flash_integrate.quoting import quoted

_WITH_FLAGS: Sequence[Codemod] = (argparse_script, click_command, typer_command)


def handed_over(facts: FileFacts, body: Sequence[ast.stmt]) -> Refusal | None:
    """Why statements need no call: they run a function of a file that turns the runtime on in it,
    and no attention besides."""
    statements = [node for node in body if not isinstance(node, Function | ast.ClassDef)]
    calls = [
        node for statement in statements for node in walk(statement) if isinstance(node, ast.Call)
    ]
    names = [name for call in calls if (name := dotted(call.func))]
    if any(facts.runs_attention(name) for name in names):
        return None
    found = [facts.workspace.definition(facts.name, name) for name in names]
    for target, _ in (item for item in found if item is not None):
        if _turns_it_on(target):
            return Refusal(
                f"only starts {quoted(target.name)}, which turns the runtime on", body[0].lineno
            )
    return None


def served_by_another(facts: FileFacts, application: str) -> Refusal | None:
    """Why an application needs no call: the script that serves it has flags, which a call here
    would override."""
    for server in facts.workspace.servers(facts.name, application):
        if _turns_it_on(server):
            return Refusal(f"{quoted(server.name)} serves it, and turns the runtime on")
    return None


def _turns_it_on(facts: FileFacts) -> bool:
    """Whether a file has flags for the runtime, from this run or an earlier one."""
    if facts.integrated_at is not None:
        return bool(facts.argparse.namespaces or facts.commands)
    if left_alone(facts) is not None or facts.reached is None:
        return False
    matches = (codemod.match(facts) for codemod in _WITH_FLAGS)
    fitting = [match for match in matches if match is not None and not isinstance(match, Refusal)]
    return any(
        not isinstance(match, argparse_script.Match) or match.namespaces for match in fitting
    )
