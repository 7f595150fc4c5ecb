"""The properties of every rewrite, checked on every file of every run before anything is
written."""

from __future__ import annotations

import warnings

from flash_integrate.errors import FileError, UnsafeRewrite
from flash_integrate.inserted.presence import integrated_at
from flash_integrate.inserted.removal import inserted, without
from flash_integrate.python.module import Module
from flash_integrate.python.source import Source


def verify(source: Source, rewritten: bytes) -> set[int]:
    """The line numbers that `rewritten` has more than the original.

    Raises:
        UnsafeRewrite: the result does not parse, would be changed again, or is more than the
            original and whole inserted lines.
    """
    result = Source(source.path, rewritten)
    try:
        with warnings.catch_warnings():
            # `1()` in a user's file is not this program's to warn about.
            warnings.simplefilter("ignore")
            compile(result.tree, str(source.path), "exec", dont_inherit=True)
        is_integrated = integrated_at(Module(result)) is not None
        found = inserted(result)
    except (FileError, SyntaxError, ValueError, RecursionError) as error:
        raise UnsafeRewrite(f"the rewritten file would not be valid: {error}") from error
    if not is_integrated:
        raise UnsafeRewrite("a second run would change the rewritten file again")
    if without(result, found) != source.data:
        raise UnsafeRewrite("taking the inserted lines out again would not give back the original")
    return found.numbers
