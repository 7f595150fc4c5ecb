"""Output in any encoding: a terminal that has no `×` gets an `x`, not a traceback."""

from __future__ import annotations

import codecs
import io
import sys

# What tables and sentences have beyond ASCII, as it is written without.
_PLAIN = {"×": "x", "±": "+-", "─": "-", "…": "...", "ᵀ": "T", "→": "->"}
_NAME = "mlx-flash-plain"


def print_in_any_encoding() -> None:
    """Has standard output and standard error write other letters for those that their encoding
    lacks (`PYTHONIOENCODING=ascii`, a terminal that speaks latin-1)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NAME)


def as_written(text: str) -> str:
    """The text as standard output will have it, whose length tables are laid out by."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, _NAME).decode(encoding)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter, "?") for letter in lacking), error.end


codecs.register_error(_NAME, _replace)
