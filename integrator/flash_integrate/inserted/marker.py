"""The comment `# flash-integrate: skip`, with which a file's author keeps the tool out of it."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

from flash_integrate.errors import UnreadableSource
from flash_integrate.python.source import Source

_WORDS = re.compile(rb"#\s*flash-integrate:\s*skip")
_MARKER = re.compile(r"(?:^|\s)#\s*flash-integrate:\s*skip(?![\w-])")


def skip_marker_line(data: bytes) -> int | None:
    """The line (from 1) of the first comment that asks to skip the file, or None. A string that
    says so does not.

    The file is cut into tokens only if its bytes hold the words, and only as far as the comment:
    what follows may be no Python at all.

    Raises:
        UnreadableSource: the words are there, but the file can't be decoded or cut into tokens
            up to them.
    """
    if not _WORDS.search(data):
        return None
    text = Source(Path(), data).text.removeprefix("\N{BYTE ORDER MARK}")
    # `newline=None` so that a lone carriage return ends a line here as it does for Python.
    tokens = tokenize.generate_tokens(io.StringIO(text, newline=None).readline)
    try:
        comments = (token for token in tokens if token.type == tokenize.COMMENT)
        return next((token.start[0] for token in comments if _MARKER.search(token.string)), None)
    except tokenize.TokenError as error:
        raise UnreadableSource(str(error.args[0]), line=error.args[1][0]) from error
    except SyntaxError as error:  # an IndentationError
        raise UnreadableSource(error.msg, line=error.lineno) from error
