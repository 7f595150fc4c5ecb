"""The way back: a script without what the tool put into it."""

from __future__ import annotations

from flash_integrate.errors import FileError, UnsafeRewrite
from flash_integrate.inserted.removal import Inserted, inserted, leftovers, without
from flash_integrate.inserted.snippets import DISABLE_FLAG, RUNTIME
from flash_integrate.notes import Note
from flash_integrate.python.edits import Rewritten
from flash_integrate.python.source import Source


def revert_script(source: Source) -> Rewritten | None:
    """A script without its insertions, None if it has none; the notes are the names that it still
    uses of them.

    Raises:
        UnreadableSource: the file can't be parsed.
        CannotRemove: an inserted statement now shares a line with another one.
        UnsafeRewrite: without the inserted lines the file would not be valid.
    """
    holds_any = any(word.encode() in source.data for word in (RUNTIME, DISABLE_FLAG))
    found = inserted(source) if holds_any else Inserted()
    if not found.lines:
        return None
    result = Source(source.path, without(source, found))
    try:
        notes = tuple(Note(f"still uses {name}", line) for line, name in leftovers(result))
    except FileError as error:
        raise UnsafeRewrite(
            f"without the inserted lines the file would not be valid: {error}"
        ) from error
    return Rewritten(source.data, result.data, frozenset(found.numbers), notes)
