"""The properties of every rewrite, checked on every file of every run before anything is
written."""

from __future__ import annotations

import dataclasses
import warnings

from flash_integrate.errors import FileError, UnsafeRewrite
from flash_integrate.inserted.removal import inserted, without
from flash_integrate.planning.plan import Status, plan
from flash_integrate.project.file_facts import FileFacts
from flash_integrate.python.source import Source


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
