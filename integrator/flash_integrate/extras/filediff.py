"""Diffs, as `git apply` takes them, of files that are created, removed or replaced by other bytes."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator


def file_diff(name: str, before: bytes | None, after: bytes | None) -> Iterator[bytes]:
    """The lines of a diff, headers first. `before` is None for a file that is created, `after` for one that goes."""
    old, new = b"a/" + os.fsencode(name), b"b/" + os.fsencode(name)
    yield b"diff --git %s %s\n" % (old, new)
    if before is None:
        yield b"new file mode 100644\n"
        old = b"/dev/null"
    if after is None:
        yield b"deleted file mode 100644\n"
        new = b"/dev/null"
    for line in difflib.diff_bytes(difflib.unified_diff, _lines(before), _lines(after), old, new):
        yield line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"


def _lines(data: bytes | None) -> list[bytes]:
    """Lines as git counts them: a newline alone ends one."""
    return re.findall(rb"[^\n]*\n|[^\n]+", data or b"")
