"""Functions that a project starts in processes of their own, and applications that a server's
workers import: a patch of the parent does not reach those.

Inserts: the call as first statement of the function, or below the imports of the application's
module. It does what the parent has chosen, by flags too. Where another codemod edits the file this
comes on top, unless that one inserts a call that the worker runs as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flash_codemods.enable import inherit_at, inherit_below_imports
from flash_integrate.attention.reach import AttentionReach
from flash_integrate.notes import Note
from flash_integrate.project.processes import Processes, Started
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.edits import Edit, Insertion
from flash_integrate.python.syntax import Function, Statement

ORDER = 40
SUMMARY = "functions that run in processes of their own: the call as first statement of each"
REVIEW = "the function is what the process runs, and its parent's choice is what it inherits"
BESIDE = True
"""Edits a file beside the codemod that is asked before it."""


def match(facts: FileFacts) -> list[Started] | None:
    """What of the file runs attention in a process of its own."""
    found = {}
    for item in facts.workspace.get(Processes).running(facts.name):
        function = _function(facts, item.name)
        if not item.name or (function is not None and _runs_attention(facts, function)):
            found[item.name] = item
    return list(found.values()) or None


def edit(facts: FileFacts, match: list[Started]) -> list[Insertion]:
    insertions = []
    for item in match:
        function = _function(facts, item.name)
        if function is None:
            insertions.append(inherit_below_imports(facts))
        elif (point := facts.first_line_of(function)) is not None:
            insertions.append(inherit_at(facts, point))
    return insertions


def remarks(facts: FileFacts, edits: Sequence[Edit]) -> Iterator[Note]:
    """The functions that take no line."""
    for item in match(facts) or ():
        function = _function(facts, item.name)
        if function is not None and facts.first_line_of(function) is None:
            yield Note("the body of what a process runs shares its line with the def", item.line)


def _function(facts: FileFacts, name: str) -> Statement | None:
    """The statement that defines a function of the module, or a method."""
    owner, _, last = name.rpartition(".")
    suite = getattr(facts.module.defines(owner), "body", []) if owner else facts.tree.body
    for node in suite:
        if isinstance(node, Function) and node.name == last:
            return facts.module.statement(node)
    return None


def _runs_attention(facts: FileFacts, function: Statement) -> bool:
    reach = facts.workspace.get(AttentionReach)
    return reach.comes_to_attention(facts.name, function.node)
