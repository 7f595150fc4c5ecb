"""The properties of every rewrite, checked on every file of every run before anything is
written."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

from flash_codemods.handwritten.handwritten_attention import examine
from flash_integrate.attention.rewrites import Rewrite, kept_of, taken_back
from flash_integrate.errors import FileError, UnsafeRewrite
from flash_integrate.inserted.removal import inserted, without
from flash_integrate.planning.plan import Status, plan
from flash_integrate.project.file_facts import FileFacts
from flash_integrate.python.source import Source


def verify_rewrites(
    source: Source, after: bytes, result: bytes, rewrites: Sequence[Rewrite]
) -> None:
    """Checks the file `after` whose attention by hand is rewritten in `result`; `source` is the
    file as it was.

    Raises:
        UnsafeRewrite: the result does not parse, has attention that would be rewritten in the
            place of one that was, or does not give back the lines that were replaced.
    """
    rewritten = Source(source.path, result)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(rewritten.tree, str(source.path), "exec", dont_inherit=True)
        left = len(examine(rewritten)[0])
        expected = len(examine(source)[0]) - len(rewrites)
    except (FileError, SyntaxError, ValueError, RecursionError) as error:
        raise UnsafeRewrite(f"the rewritten file would not be valid: {error}") from error
    if left != expected:
        raise UnsafeRewrite("a second run would change the rewritten file again")
    restored, lost = taken_back(result, kept_of(result, after, rewrites))
    if restored != after or lost:
        raise UnsafeRewrite("taking the rewrites back would not give back the original")


def verify(facts: FileFacts, rewritten: bytes) -> set[int]:
    """The line numbers that `rewritten` has more than the original.

    Raises:
        UnsafeRewrite: the result does not parse, would be changed again, or is more than the
            original and whole inserted lines.
    """
    result = Source(facts.source.path, rewritten)
    try:
        with warnings.catch_warnings():
            # `1()` in a user's file is not this program's to warn about.
            warnings.simplefilter("ignore")
            compile(result.tree, str(facts.name), "exec", dont_inherit=True)
        again = plan(dataclasses.replace(facts, source=result))
        found = inserted(result)
    except (FileError, SyntaxError, ValueError, RecursionError) as error:
        raise UnsafeRewrite(f"the rewritten file would not be valid: {error}") from error
    if again.status is not Status.INTEGRATED:
        raise UnsafeRewrite("a second run would change the rewritten file again")
    if without(result, found) != facts.source.data:
        raise UnsafeRewrite("taking the inserted lines out again would not give back the original")
    return found.numbers
