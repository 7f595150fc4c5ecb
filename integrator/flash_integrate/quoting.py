"""Names and texts of a repo as they are shown: nothing in them moves the cursor, ends a line or
reads as a command.

A file name may hold an escape sequence, a line break, or a character that turns the text around;
and CI systems obey what is printed into their logs where a line starts with `::error` or holds
`##[error]`. Such characters are written as git writes them in names, `\\033` for the escape
character. Letters of every script stay as they are.
"""

from __future__ import annotations

import os
import re
from pathlib import PurePath

_NAMED = {"\a": "\\a", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\v": "\\v", "\f": "\\f", "\r": "\\r"}
# Without the first of two colons, or of two hashes, nothing is a command to GitHub, GitLab, Azure
# or TeamCity.
_CI_COMMAND = re.compile(":(?=:)|#(?=#)")


def quoted(name: PurePath | str) -> str:
    """A path as git shows it: in quotes, and escaped, if something in it is not to be printed as
    it is."""
    raw = os.fspath(name)
    shown = printable(raw.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t"))
    return raw if shown == raw else f'"{shown}"'


def printable(text: str) -> str:
    """A text as one line of a message: line breaks are escaped too, and what a CI system would
    obey."""
    return _CI_COMMAND.sub(lambda match: _escaped(match[0]), visible(text).replace("\n", "\\n"))


def visible(text: str) -> str:
    """Lines of a file as a terminal can show them: all but tabs and line breaks that can't be
    printed is escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\t\n" else _escaped(char) for char in text
    )


def _escaped(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    # A byte that is no UTF-8 stands in a Python string as one of these.
    is_byte = "\udc80" <= char <= "\udcff"
    data = bytes([ord(char) - 0xDC00]) if is_byte else char.encode(errors="surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in data)
