"""Rewrites of a model's own code on top of what is inserted, verified as everything else."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flash_integrate.attention.record import RECORD
from flash_integrate.attention.rewrites import Kept, Rewrite, kept_of, taken_back
from flash_integrate.errors import FileError, UnsafeRewrite
from flash_integrate.inserted.revert import revert_script
from flash_integrate.notes import Note
from flash_integrate.planning.by_hand import WrittenOut, notes_by_hand, written_out
from flash_integrate.planning.codemod import name_of, rewriters
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status, stays_as_it_is
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.source import Source


def with_rewrites(outcome: Outcome, facts: FileFacts) -> Outcome:
    """An outcome with the attention by hand that becomes a fused call, and notes on what stays.

    Raises:
        UnsafeRewrite: the rewritten file fails a check.
    """
    if outcome.status is Status.FAILED or stays_as_it_is(facts) is not None:
        return outcome
    if outcome.status is Status.SKIPPED and not outcome.notes:
        outcome = dataclasses.replace(outcome, notes=tuple(notes_by_hand(facts)))
    for found in facts.get(written_out):
        if found.rewrites:
            outcome = _changed(outcome, facts.source, found)
    return outcome


def _changed(outcome: Outcome, source: Source, found: WrittenOut) -> Outcome:
    if not outcome.changes:
        outcome = _for_rewrites(outcome, source.data, found.rewriter)
    outcome = dataclasses.replace(outcome, rewrites=tuple(found.rewrites))
    _verify(source, outcome, found)
    return outcome


def with_rewrites_alone(outcome: Outcome, rewrites: tuple[Rewrite, ...]) -> Outcome:
    """An outcome of which nothing is inserted, and these of its rewrites are made."""
    plain = _for_rewrites(outcome, outcome.before, rewriters()[0])
    return dataclasses.replace(plain, lines=frozenset(), rewrites=rewrites)


def _for_rewrites(outcome: Outcome, data: bytes, rewriter: Any) -> Outcome:
    return dataclasses.replace(
        outcome,
        status=Status.CHANGED,
        reason="its attention by hand can be a fused call",
        line=None,
        codemod=name_of(rewriter),
        review=rewriter.REVIEW,
        before=data,
        after=data,
    )


def _verify(source: Source, outcome: Outcome, found: WrittenOut) -> None:
    """Checks that the result parses, that a second run finds nothing more in it, and that it gives
    back the lines that were replaced."""
    result = Source(source.path, outcome.result)
    try:
        with warnings.catch_warnings():
            # `1()` in a user's file is not this program's to warn about.
            warnings.simplefilter("ignore")
            compile(result.tree, str(source.path), "exec", dont_inherit=True)
        left = len(found.rewriter.examine(result)[0])
    except (FileError, SyntaxError, ValueError, RecursionError) as error:
        raise UnsafeRewrite(f"the rewritten file would not be valid: {error}") from error
    if left != found.left:
        raise UnsafeRewrite("a second run would change the rewritten file again")
    kept = kept_of(outcome.result, outcome.after, outcome.rewrites)
    if taken_back(outcome.result, kept) != (outcome.after, []):
        raise UnsafeRewrite("taking the rewrites back would not give back the original")


def take_back(outcome: Outcome, path: Path, kept: Iterable[Kept]) -> Outcome:
    """A file with its own lines in the place of rewrites, and without what was inserted; `outcome`
    has its bytes as `before`.

    Raises:
        FileError: without the insertions it would not run.
    """
    kept = list(kept)
    own, left = taken_back(outcome.before, kept)
    inserted = revert_script(Source(path, own))
    after = own if inserted is None else inserted.after
    notes = tuple(Note(_edited_since(item)) for item in left)
    if after == outcome.before:
        return dataclasses.replace(
            outcome, status=Status.FAILED, reason=notes[0].reason, before=b""
        )
    gone = tuple(item for item in kept if item not in left)
    return dataclasses.replace(
        outcome,
        reason=_taken_out(0 if inserted is None else len(inserted.lines), len(gone)),
        notes=notes,
        after=after,
        taken_back=gone,
        left=tuple(left),
    )


def _taken_out(lines: int, rewrites: int) -> str:
    back = f"{rewrites} rewrite{'s' if rewrites != 1 else ''} taken back"
    return f"{lines} lines taken out, {back}" if lines else back


def _edited_since(kept: Kept) -> str:
    return (
        f"the attention of {kept.function} was edited since it was rewritten: it stays; "
        f"what stood there is in {RECORD}"
    )
