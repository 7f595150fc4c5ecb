"""Attention that a file writes out by hand, and what this run makes of it."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flash_integrate.attention.evidence import Link
from flash_integrate.attention.libraries import FUSED
from flash_integrate.attention.rewrites import Rewrite
from flash_integrate.attention.signs import handwritten_lines
from flash_integrate.errors import FileError
from flash_integrate.notes import Note, Refusal
from flash_integrate.planning.codemod import name_of, rewriters
from flash_integrate.project.workspace import FileFacts, Workspace
from flash_integrate.python.processes import OwnProcesses

_NOT_REWRITTEN = "in notebooks and on standard input it is not rewritten"


@dataclass(frozen=True)
class WrittenOut:
    """What one rewriter, by the name of its codemod, makes of a file's attention: the lines that
    it replaces, and why it leaves the rest; `left` rewrites are among that."""

    codemod: str
    rewrites: list[Rewrite]
    refusals: list[Refusal]
    left: int

    @property
    def rewriter(self) -> Any:
        return next(item for item in rewriters() if name_of(item) == self.codemod)


def written_out(facts: FileFacts) -> list[WrittenOut]:
    """What becomes of the attention that a file writes out. Nothing where no line of the file's own
    may be replaced: in a notebook, on standard input.

    Raises:
        UnreadableSource: the file can't be decoded or parsed.
    """
    return begin_proofs(facts)()


def begin_proofs(
    facts: FileFacts, processes: OwnProcesses | None = None
) -> Callable[[], list[WrittenOut]]:
    """Has what becomes of the attention that a file writes out proved, in one of `processes` if
    they are given; what it returns waits for the proofs, and gives what `written_out` does.

    Raises:
        UnreadableSource: as `written_out`.
    """
    workspace = facts.workspace
    if facts.name not in workspace.rewritable or b"softmax" not in facts.source.data:
        return lambda: []
    width = workspace.line_width(facts.name.parent)
    begun = {
        name_of(rewriter): rewriter.begin(facts.source, width=width, processes=processes)
        for rewriter in rewriters()
        if workspace.wants(name_of(rewriter))
    }
    unproven = workspace.unproven
    return lambda: [written_out_of(name, found(), unproven) for name, found in begun.items()]


def written_out_of(
    codemod: str, found: tuple[list[Rewrite], list[Refusal]], with_unproven: bool
) -> WrittenOut:
    """What is offered of a rewriter's rewrites and refusals, and what is left."""
    rewrites, refusals = found
    offered = [item for item in rewrites if item.proved or (with_unproven and not item.differs)]
    left = [item for item in rewrites if item not in offered]
    refusals = [*refusals, *map(_not_offered, left)]
    return WrittenOut(codemod, offered, refusals, len(left))


def _not_offered(rewrite: Rewrite) -> Refusal:
    way = "" if rewrite.differs else ": --unproven offers it"
    return Refusal(f"{rewrite.verdict}{way}", rewrite.line)


def becomes_fused(workspace: Workspace, link: Link) -> bool:
    """Whether this run turns the attention by hand at a link into a call that can be routed: what
    is reached through it is then reached by a second run, too."""
    try:
        found = workspace.facts(link.path).get(written_out)
    except FileError:  # reported when the file's own turn comes
        return False
    return any(rewrite.line == link.line for item in found for rewrite in item.rewrites)


def notes_by_hand(facts: FileFacts) -> list[Note]:
    """Notes on the attention by hand that this run leaves as it is, which no patch can reach."""
    found = facts.get(written_out)
    fused = {rewrite.line for item in found for rewrite in item.rewrites}
    refusals = [refusal for item in found for refusal in item.refusals]
    of_file = None if facts.name in facts.workspace.rewritable else _NOT_REWRITTEN
    return [
        stays_by_hand(line, _reason_in_function(facts, line, refusals) or of_file)
        for line in facts.get(handwritten_lines)
        if line not in fused
    ]


def _reason_in_function(facts: FileFacts, line: int, refusals: list[Refusal]) -> str | None:
    """Why the attention on a line is refused: the reason may speak of another line of its
    function, such as the one that returns the weights. Of several it is the nearest."""
    own = _function_at(facts, line)
    of_function = [
        (abs(refusal.line - line), refusal.reason)
        for refusal in refusals
        if refusal.line is not None and _function_at(facts, refusal.line) is own
    ]
    return min(of_function)[1] if of_function else None


def _function_at(facts: FileFacts, line: int) -> ast.AST | None:
    """The innermost function that a line stands in."""
    around = [
        node
        for node in facts.module.of_kind(ast.FunctionDef)
        if node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    return max(around, key=lambda node: node.lineno, default=None)


def stays_by_hand(line: int, refused: str | None = None) -> Note:
    """The note on attention that stays written by hand, and why it is refused, where it is."""
    reason = refused or f"only calls of {FUSED} can be patched"
    return Note(f"attention written by hand stays as it is: {reason}", line)
